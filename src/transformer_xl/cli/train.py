"""`transformer-xl train`: from a text to a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

SENTENCE = "Train a new model on a text and leave it in a folder."
GROUPS: dict[str, type[Any]] = {"text": TextSettings, "model": ModelSettings, "training": TrainingSettings}

Settings = TypeVar("Settings", TextSettings, ModelSettings, TrainingSettings)


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each setting, with its sentence and its default."""
    parser.add_argument("out", metavar="OUT", help="folder for the model; it must be new or empty")
    for title, settings in GROUPS.items():
        group = parser.add_argument_group(title)
        types = get_type_hints(settings)
        arguments = {each.name: _argument(each, types[each.name]) for each in fields(settings)}
        alternatives = group.add_mutually_exclusive_group() if settings is TrainingSettings else group
        for name, argument in arguments.items():
            holder = alternatives if name in ("steps", "minutes") else group
            holder.add_argument(f"--{name.replace('_', '-')}", **argument)


def run(options: argparse.Namespace) -> None:
    """Trains, and says where the model is and how good."""
    settings = RunSettings(
        _settings(TextSettings, vars(options)),
        _settings(ModelSettings, vars(options)),
        _settings(TrainingSettings, vars(options)),
    )
    from transformer_xl.evaluation import loss_in_words
    from transformer_xl.training.loop import train

    try:
        score = train(settings, options.out, show_progress=True)
    except KeyboardInterrupt:
        left = f"{options.out} holds the best model so far" if Path(options.out).exists() else "nothing was written"
        raise KeyboardInterrupt(f"stopped; {left}") from None
    words = loss_in_words(score.loss, settings.text.unit)
    print(f"{options.out}: validation {words}, {score.tokens:,} tokens scored ({score.protocol})")


def _argument(setting: Field[Any], annotation: Any) -> dict[str, Any]:
    sentence = setting.metadata["sentence"].replace("%", "%%")
    if setting.default is MISSING:
        return {"required": True, "metavar": "TEXT", "help": sentence}
    if setting.default is not None:
        sentence += " (%(default)s)"
    argument = {"default": setting.default, "help": sentence}
    if annotation is bool:
        return {**argument, "action": argparse.BooleanOptionalAction}
    if "choices" in setting.metadata:
        return {**argument, "choices": setting.metadata["choices"]}
    if annotation == tuple[int, ...] | None:
        return {**argument, "type": int, "nargs": "+", "metavar": "N"}
    number_types = {int: (int, "N"), int | None: (int, "N"), float: (float, "X"), float | None: (float, "X")}
    kind, name = number_types.get(annotation, (str, "TEXT"))
    return {**argument, "type": kind, "metavar": name}


def _settings(settings: type[Settings], options: Mapping[str, Any]) -> Settings:
    return settings(**{each.name: options[each.name] for each in fields(settings)})
