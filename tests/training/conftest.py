from __future__ import annotations

from pathlib import Path

import pytest

from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

TOY_TEXT = "the cat sat on the mat and the dog lay on the rug.\n" * 60


@pytest.fixture
def toy_run(tmp_path: Path) -> RunSettings:
    """A run of seconds, on a text that repeats one line."""
    path = tmp_path / "toy.txt"
    path.write_text(TOY_TEXT, encoding="utf-8")
    return RunSettings(
        TextSettings(str(path)),
        ModelSettings(num_layers=2, width=32, num_heads=2, inner_width=64, memory_length=16),
        TrainingSettings(segment_length=16, batch_size=4, steps=60, evaluations=3, learning_rate=1e-2),
    )
