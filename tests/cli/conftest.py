from __future__ import annotations

from pathlib import Path

import pytest

from transformer_xl.cli.main import main

TOY_TEXT = "the cat sat on the mat and the dog lay on the rug.\n" * 60
SMALL_MODEL = [
    *("--num-layers", "1", "--width", "16", "--num-heads", "2", "--inner-width", "32"),
    *("--memory-length", "16", "--batch-size", "4"),
]
SHORT_RUN = ["--segment-length", "16", "--steps", "20", "--evaluations", "2", "--learning-rate", "0.01"]


@pytest.fixture(scope="session")
def toy_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "toy.txt"
    path.write_text(TOY_TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(toy_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `transformer-xl train` wrote."""
    out = tmp_path_factory.mktemp("runs") / "out"
    assert main(["train", "--train", str(toy_text), str(out), *SMALL_MODEL, *SHORT_RUN]) == 0
    return out


@pytest.fixture(scope="session")
def trained_on_words(toy_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "words"
    options = ["--unit", "word", *SMALL_MODEL, *SHORT_RUN]
    assert main(["train", "--train", str(toy_text), str(out), *options]) == 0
    return out
