"""The examples of Keras run, each on the backend that it is for; on PyTorch both."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import keras
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "printed"),
    [("keras_fit_on_jax", "4", "ROMEO."), ("keras_classify_on_tensorflow", "300", "accuracy on other lines")],
)
def test_the_example_runs(
    name: str, size: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if keras.config.backend() not in (name.rpartition("_")[2], "torch"):
        pytest.skip("the example is for another backend")
    monkeypatch.setattr(sys, "argv", [name, size])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert printed in capsys.readouterr().out
