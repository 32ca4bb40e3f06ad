"""Fields of dataclasses with a sentence and a range, and what is said of a value out of range."""

from __future__ import annotations

import math
from dataclasses import Field, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def setting(default: Any, sentence: str, **limits: Any) -> Any:
    """A field with its sentence.

    Limits: `at_least`, `above`, `at_most`, `below`, `choices`. A run that goes on may differ in a setting that is
    `free`, needs leave to differ in others, and cannot differ in one that is `fixed`.
    """
    return field(default=default, metadata={"sentence": sentence, **limits})


def check(settings: DataclassInstance) -> None:
    """Refuse a value out of its range with a ValueError that says what may come; None is never out of range."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if value is not None and (mistake := _mistake(each, value)):
            raise ValueError(f"{each.name} is {value!r}, but must be {mistake}")


def _mistake(setting: Field[Any], value: Any) -> str | None:
    """What the value would have to be, if it is not."""
    limits = setting.metadata
    if "choices" in limits and value not in limits["choices"]:
        return f"one of {', '.join(limits['choices'])}"
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if "at_least" in limits and value < limits["at_least"]:
        return f"at least {limits['at_least']}"
    if "above" in limits and value <= limits["above"]:
        return f"above {limits['above']}"
    if "at_most" in limits and value > limits["at_most"]:
        return f"at most {limits['at_most']}"
    if "below" in limits and value >= limits["below"]:
        return f"below {limits['below']}"
    return None
