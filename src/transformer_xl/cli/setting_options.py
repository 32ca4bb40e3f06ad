"""Options of the command line, made of the settings: one for each, with its sentence and its default."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def option_name(setting: Field[Any]) -> str:
    """The option of a setting."""
    return f"--{setting.name.replace('_', '-')}"


def option_of(setting: Field[Any], annotation: Any) -> dict[str, Any]:
    """What `add_argument` is told of a setting with this type; an option that is not given is not there."""
    sentence = setting.metadata["sentence"]
    if setting.default is not MISSING and setting.default is not None:
        sentence += f" ({setting.default})"
    argument = {"default": argparse.SUPPRESS, "help": sentence.replace("%", "%%")}
    if annotation is bool:
        return {**argument, "action": argparse.BooleanOptionalAction}
    if "choices" in setting.metadata:
        return {**argument, "choices": setting.metadata["choices"]}
    if annotation == tuple[int, ...] | None:
        return {**argument, "type": int, "nargs": "+", "metavar": "N"}
    number_types = {int: (int, "N"), int | None: (int, "N"), float: (float, "X"), float | None: (float, "X")}
    kind, name = number_types.get(annotation, (str, "TEXT"))
    return {**argument, "type": kind, "metavar": name}


def settings_of(kind: type[Settings], options: Mapping[str, Any]) -> Settings:
    """The settings that the options say; the others have their defaults."""
    return kind(**{each.name: options[each.name] for each in fields(kind) if each.name in options})
