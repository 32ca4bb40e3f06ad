"""The runs of the paper, and small ones, as functions that return the whole run.

Source: the shell scripts of the authors' PyTorch code, and for Penn Treebank and WikiText-2, which have none, the logs
of those who trained them. Where one of them leaves something open, the docstring says what was chosen.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

from transformer_xl.training.settings import GROUPS, ModelSettings, RunSettings, TextSettings, TrainingSettings

Recipe = Callable[[str | None], RunSettings]
Group = TypeVar("Group", TextSettings, ModelSettings, TrainingSettings)

# All layers share their biases and normalise what a block puts out; the memory of a text begins empty.
AUTHORS_MODEL: dict[str, Any] = {"share_biases": True, "pre_norm": False, "initial_memory": "empty"}
AUTHORS_TRAINING: dict[str, Any] = {
    "optimizer": "adam",
    "beta1": 0.9,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "learning_rate": 2.5e-4,
    "final_learning_rate": 0.0,
    "schedule": "cosine",
    "clip_norm": 0.25,
}
STEPS_BETWEEN_EVALUATIONS = 4_000
WT103_CUTOFFS = (20_000, 40_000, 200_000)
LM1B_CUTOFFS = (60_000, 100_000, 640_000)


def wt103_base(data: str | None = None) -> RunSettings:
    """WikiText-103, 16 layers, 151 million parameters: 24.0 of perplexity in the paper."""
    return RunSettings(
        TextSettings(dataset="wt103", data=data),
        _model(16, 410, 10, 41, 2100, memory_length=150, cutoffs=WT103_CUTOFFS, dropout=0.1),
        _training(150, 60, 200_000, warm_up_steps=0),
    )


def wt103_large(data: str | None = None) -> RunSettings:
    """WikiText-103, 18 layers, 285 million parameters (257 million by the paper): 18.3 of perplexity in the paper."""
    return RunSettings(
        TextSettings(dataset="wt103", data=data),
        _model(
            18, 1024, 16, 64, 4096, memory_length=384, cutoffs=WT103_CUTOFFS, band_divisor=4, dropout=0.2,
            attention_dropout=0.2,
        ),
        _training(384, 128, 4_000_000, warm_up_steps=16_000),
    )  # fmt: skip


def enwik8_base(data: str | None = None) -> RunSettings:
    """enwik8 without its line ends, as the authors read it, 12 layers, 41 million parameters: 1.06 in the paper."""
    return RunSettings(
        TextSettings(dataset="enwik8-authors", data=data),
        _model(12, 512, 8, 64, 2048, memory_length=512, cutoffs=(), dropout=0.1),
        _training(512, 22, 400_000, warm_up_steps=0),
    )


def enwik8_large(data: str | None = None) -> RunSettings:
    """enwik8 without its line ends, as the authors read it, 24 layers, 277 million parameters: 0.99 in the paper."""
    return RunSettings(
        TextSettings(dataset="enwik8-authors", data=data),
        _model(24, 1024, 8, 128, 3072, memory_length=768, cutoffs=(), dropout=0.15, attention_dropout=0.15),
        _training(768, 64, 400_000, warm_up_steps=4_000),
    )


def text8_large(data: str | None = None) -> RunSettings:
    """text8, 24 layers, 277 million parameters: 1.08 bits per character in the paper.

    The authors' script names no warm-up; it is that of enwik8.
    """
    enwik8 = enwik8_large()
    return RunSettings(TextSettings(dataset="text8", data=data), enwik8.model, enwik8.training)


def lm1b_base(data: str | None = None) -> RunSettings:
    """One Billion Words, 18 layers: 23.5 of perplexity in the paper.

    358 million parameters; the paper's 0.46 billion count the output words apart from the input words, which they are.
    """
    return RunSettings(
        TextSettings(dataset="lm1b", data=data),
        _model(
            18, 1024, 8, 128, 4096, memory_length=32, cutoffs=LM1B_CUTOFFS, band_divisor=4, tie_projections=False
        ),
        _training(32, 224, 500_000, warm_up_steps=20_000),
    )  # fmt: skip


def lm1b_large(data: str | None = None) -> RunSettings:
    """One Billion Words, 24 layers, 841 million parameters: 21.8 of perplexity in the paper."""
    return RunSettings(
        TextSettings(dataset="lm1b", data=data),
        _model(
            24, 1280, 16, 80, 8192, memory_length=32, cutoffs=LM1B_CUTOFFS, band_divisor=4, tie_projections=False,
            dropout=0.05, attention_dropout=0.05,
        ),
        _training(32, 512, 1_200_000, warm_up_steps=30_000),
    )  # fmt: skip


def wikitext2(data: str | None = None) -> RunSettings:
    """WikiText-2, 16 layers, 37.7 million parameters: perplexities of 63.13 to 63.53 on the test text, by others."""
    return RunSettings(
        TextSettings(dataset="wt2", data=data),
        _model(
            16, 400, 10, 40, 900, memory_length=150, cutoffs=(20_000,), dropout=0.2, attention_dropout=0.2,
            word_dropout=0.2, locked_input_dropout=0.6, locked_output_dropout=0.5,
        ),
        _training(150, 32, 125_000, warm_up_steps=3_000, learning_rate=3.5e-4, weight_decay=1.2e-6, evaluations=60),
    )  # fmt: skip


def ptb(data: str | None = None) -> RunSettings:
    """Penn Treebank, 16 layers, 24.04 million parameters: 54.52 of perplexity in the paper, 55.26 to 55.60 later.

    125 epochs, and then 50 at half the last rate whose weights are averaged. An epoch has about 1,362 steps, since
    segments have 70 words or, one in twenty, 35. No memory: the 70 words before a segment are read again with it.
    """
    return RunSettings(
        TextSettings(dataset="ptb", data=data, varlen=True, ext_len=70),
        _model(
            16, 380, 10, 38, 900, memory_length=0, cutoffs=(), share_position_projection=True,
            attention_dropout=0.2, word_dropout=0.2, locked_input_dropout=0.6, locked_attention_dropout=0.2,
            locked_feed_forward_dropout=0.2, locked_output_dropout=0.5,
        ),
        _training(
            70, 10, 175 * 1_362, warm_up_steps=3_000, learning_rate=3e-4, final_learning_rate=1 / 3,
            weight_decay=1.2e-6, embedding_rate=2.0, scale_rate_by_length=True, activation_regularization=0.2,
            temporal_activation_regularization=0.1, averaging="mean", averaging_start=125 / 175,
            averaging_learning_rate=0.5, evaluations=175,
        ),
    )  # fmt: skip


def small_characters(data: str | None = None) -> RunSettings:
    """Nine plays of Shakespeare, or the text `data`, by characters: three minutes on two cores of a laptop."""
    text = TextSettings(data or "builtin:shakespeare")
    return RunSettings(text, training=TrainingSettings(minutes=3.0, evaluations=6))


def small_words(data: str | None = None) -> RunSettings:
    """Nine plays of Shakespeare, or the text `data`, by words that occur twice: five minutes on two cores."""
    return RunSettings(
        TextSettings(data or "builtin:shakespeare", unit="word", min_count=2),
        ModelSettings(dropout=0.1),
        TrainingSettings(minutes=5.0, evaluations=6),
    )


RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (
        wt103_base,
        wt103_large,
        enwik8_base,
        enwik8_large,
        text8_large,
        lm1b_base,
        lm1b_large,
        wikitext2,
        ptb,
        small_characters,
        small_words,
    )
}


def changed(run: RunSettings, **changes: Any) -> RunSettings:
    """A run with other values of some settings, of whichever group they are.

    `train` takes the place of a known set, `steps` that of `minutes` and the other way round; a warm-up in steps then
    becomes the same share of the run.

    Raises:
        ValueError: There is no such setting, or its value cannot be.

    Example:
        >>> run = changed(wikitext2("wikitext-2"), batch_size=16, precision="bf16")
    """
    known = [each.name for group in GROUPS.values() for each in fields(group)]
    for name in changes:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3) or known
            raise ValueError(f"there is no setting {name!r}: is it one of {', '.join(close)}?")
    if changes.get("train") is not None:
        changes = {"dataset": None, "data": None, **changes}
    if changes.get("minutes") is not None and run.training.warm_up_steps is not None:
        changes = {"warm_up_steps": None, "warm_up": run.training.warm_up_steps / run.training.steps, **changes}
    if changes.get("steps") is not None:
        changes = {"minutes": None, **changes}
    return RunSettings(_replaced(run.text, changes), _replaced(run.model, changes), _replaced(run.training, changes))


def _replaced(group: Group, changes: dict[str, Any]) -> Group:
    return replace(group, **{each.name: changes[each.name] for each in fields(group) if each.name in changes})


def _model(
    num_layers: int, width: int, num_heads: int, head_width: int, inner_width: int, **others: Any
) -> ModelSettings:
    sizes = {"num_heads": num_heads, "head_width": head_width, "inner_width": inner_width}
    return ModelSettings(num_layers, width, **{**AUTHORS_MODEL, **sizes, **others})


def _training(segment_length: int, batch_size: int, steps: int, **others: Any) -> TrainingSettings:
    usual = {**AUTHORS_TRAINING, "evaluations": steps // STEPS_BETWEEN_EVALUATIONS}
    return TrainingSettings(segment_length, batch_size, steps=steps, **{**usual, **others})
