"""Pictures of a run: its learning curve, and what memory buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformer_xl.evaluation import Score
from transformer_xl.text.vocabulary import UNIT_NAMES, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_learning_curve(metrics: Sequence[dict[str, Any]], unit: Unit, path: str | Path) -> None:
    """Writes a picture of the losses in the lines of a run's `metrics.jsonl`, by the minute. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2))
    _draw_curve(figure.subplots(), metrics, unit)
    figure.savefig(path)


def draw_run(metrics: Sequence[dict[str, Any]], scores: Sequence[Score], unit: Unit, path: str | Path) -> None:
    """Writes a picture: the learning curve beside the bits per symbol at several memory lengths.

    `metrics` are the lines of a run's `metrics.jsonl`, `scores` those of one text, `unit` that of the vocabulary. Needs
    matplotlib: `pip install "transformer-xl[plots]"`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curve, table = figure.subplots(1, 2)
    _draw_curve(curve, metrics, unit)
    table.plot([score.protocol.memory_length for score in scores], [score.bits_per_symbol for score in scores], "o-")
    table.set(xlabel="memory length", ylabel=f"bits per {UNIT_NAMES[unit]}", title="What memory buys (validation text)")
    figure.savefig(path, dpi=120)


def _draw_curve(curve: Axes, metrics: Sequence[dict[str, Any]], unit: Unit) -> None:
    for name, label in (("loss", "training"), ("validation_loss", "validation")):
        points = [(line["seconds"] / 60, line[name] / math.log(2)) for line in metrics if name in line]
        minutes, bits = zip(*points, strict=True)
        curve.plot(minutes, bits, label=label, marker="o" if name == "validation_loss" else None)
    curve.set(xlabel="minutes", ylabel=f"bits per {UNIT_NAMES[unit]}", title="Learning")
    curve.legend()
