"""What is missing is told in one sentence, and nothing is imported before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import pytest

import transformer_xl


def outcome(program: str, **environment: str) -> str:
    """The last line that a program prints in a process of its own, to either stream."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_the_package_does_not_import_keras() -> None:
    assert outcome("import sys, transformer_xl; print('keras' in sys.modules)") == "False"


@pytest.mark.parametrize("name", ["KerasTransfoXLModel", "KerasAdaptiveEmbedding", "KerasTransfoXLLMHeadModelOutput"])
def test_the_names_are_in_the_package(name: str) -> None:
    assert getattr(transformer_xl, name).__name__ == name
    assert name in dir(transformer_xl)


def test_the_names_of_transformers_4_are_the_same_classes() -> None:
    if keras.config.backend() == "tensorflow":
        ours = transformer_xl.TFTransfoXLModel
    else:
        with pytest.warns(UserWarning, match="set KERAS_BACKEND=tensorflow"):
            ours = transformer_xl.TFTransfoXLModel
    assert ours is transformer_xl.KerasTransfoXLModel


@pytest.mark.parametrize(
    ("missing", "environment", "sentence"),
    [
        ("keras", {"KERAS_BACKEND": "jax"}, "pip install 'transformer-xl[jax]'"),
        ("tensorflow", {"KERAS_BACKEND": "tensorflow"}, "pip install 'transformer-xl[tensorflow]'"),
        ("jax", {"KERAS_BACKEND": "jax"}, "pip install 'transformer-xl[jax]'"),
        ("", {"KERAS_BACKEND": "numpy"}, "KERAS_BACKEND=numpy cannot train"),
        ("", {"TF_USE_LEGACY_KERAS": "1"}, "unset it before the first import"),
    ],
)
def test_what_is_missing_is_told_with_the_way_out(missing: str, environment: dict[str, str], sentence: str) -> None:
    block = f"import sys; sys.modules[{missing!r}] = None; " if missing else ""
    said = outcome(f"{block}from transformer_xl import KerasTransfoXLModel", **environment)
    assert said.startswith("ImportError: ")
    assert sentence in said
