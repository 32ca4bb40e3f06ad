"""A picture of what memory, clamp and segment length do to a score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformer_xl.evaluation.scores import Score
from transformer_xl.text.vocabulary import UNIT_NAMES, Unit

LENGTHS = {"memory_length": "memory", "target_length": "target", "clamp_length": "clamp"}


def check_picture(path: str | Path) -> None:
    """Raise a ValueError if no picture can be drawn into this file; better before hours of evaluation than after."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("a picture needs matplotlib: pip install 'transformer-xl[plots]'") from error
    kinds = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".") not in kinds:
        raise ValueError(f"{str(path)!r} is no kind of picture: end the name in one of .{', .'.join(sorted(kinds))}")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"the folder of {str(path)!r} does not exist: make it first")


def draw_sweep(scores: Sequence[Score], unit: Unit, path: str | Path) -> None:
    """Writes a picture of scores over the length that takes the most values, with a line for each of the others.

    Words are drawn in perplexity, all else in bits per symbol. Needs matplotlib: `pip install "transformer-xl[plots]"`.
    """
    from matplotlib.figure import Figure

    values = {name: sorted({getattr(score.protocol, name) for score in scores}) for name in LENGTHS}
    across = max(LENGTHS, key=lambda name: len(values[name]))
    others = [name for name in LENGTHS if name != across and len(values[name]) > 1]
    lines: dict[str, list[Score]] = {}
    for score in scores:
        label = ", ".join(f"{LENGTHS[name]} {_in_words(getattr(score.protocol, name))}" for name in others)
        lines.setdefault(label, []).append(score)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, line in lines.items():
        line.sort(key=lambda score: values[across].index(getattr(score.protocol, across)))
        places = [values[across].index(getattr(score.protocol, across)) for score in line]
        axes.plot(
            places, [score.perplexity if unit == "word" else score.bits_per_symbol for score in line], "o-", label=label
        )
    axes.set_xticks(range(len(values[across])), [_in_words(value) for value in values[across]])
    axes.set(
        xlabel=f"{LENGTHS[across]} length",
        ylabel="perplexity" if unit == "word" else f"bits per {UNIT_NAMES[unit]}",
        title=f"{scores[0].tokens:,} tokens: {scores[0].protocol.conditions}",
    )
    axes.title.set_fontsize("small")
    if others:
        axes.legend()
    figure.savefig(path, dpi=120)


def _in_words(length: int) -> str:
    return "none" if length < 0 else f"{length:,}"
