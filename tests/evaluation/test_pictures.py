from __future__ import annotations

import sys

import pytest

from transformer_xl.evaluation import Protocol, Score, sweep
from transformer_xl.evaluation.pictures import check_picture, draw_sweep

PROTOCOLS = sweep(Protocol(), [16, 32], [0, 16, 64], [-1, 8])


def test_without_matplotlib_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'transformer-xl\[plots\]'"):
        check_picture(tmp_path / "sweep.png")


@pytest.mark.parametrize(
    ("name", "message"), [("sweep.xyz", "end the name in one of"), ("sweep", "no kind"), ("none/sweep.png", "make it")]
)
def test_a_file_that_no_picture_can_go_into_is_refused(name, message, tmp_path):
    pytest.importorskip("matplotlib")
    check_picture(tmp_path / "sweep.png")
    with pytest.raises(ValueError, match=message):
        check_picture(tmp_path / name)


@pytest.mark.parametrize("unit", ["char", "word"])
def test_each_combination_of_the_other_lengths_gets_its_line(unit, tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, path, **options: drawn.append(figure))
    draw_sweep([Score(100.0 - i, 50, each, 1.0) for i, each in enumerate(PROTOCOLS)], unit, tmp_path / "sweep.png")
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "memory length"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "16", "64"]
    assert {line.get_label() for line in axes.lines} == {
        f"target {target}, clamp {clamp}" for target in (16, 32) for clamp in ("none", "8")
    }
    assert all(len(line.get_ydata()) == 3 for line in axes.lines)


@pytest.mark.parametrize("scores", [PROTOCOLS, PROTOCOLS[:1]], ids=len)
def test_the_picture_is_a_png(scores, tmp_path):
    pytest.importorskip("matplotlib")
    draw_sweep([Score(10.0, 5, each, 1.0) for each in scores], "char", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
