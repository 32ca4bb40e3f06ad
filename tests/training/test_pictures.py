from __future__ import annotations

import pytest

from transformer_xl.evaluation import Protocol, Score

pytest.importorskip("matplotlib")


def test_the_picture_is_a_png(tmp_path):
    from transformer_xl.training.pictures import draw_run

    metrics = [{"seconds": 1.0, "loss": 3.0}, {"seconds": 2.0, "loss": 2.0}, {"seconds": 2.0, "validation_loss": 2.5}]
    scores = [Score(100 - length, 50, Protocol(memory_length=length), 1.0) for length in (0, 16, 64)]
    draw_run(metrics, scores, "char", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
