"""TensorFlow's checkpoints are read without TensorFlow, and broken ones are refused by name."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_xl.conversion.tensor_bundle import TensorBundle

from .hostile_files import one_sentence_about

FOLDER = Path(__file__).parents[1] / "golden" / "conversion" / "tf_wt103_large"
PREFIX = FOLDER / "model.ckpt-1"


def test_every_variable_is_found_with_its_shape() -> None:
    bundle = TensorBundle(PREFIX)
    weights = [name for name in bundle.variables if "Adam" not in name]
    assert len(weights) == 39
    assert bundle.variables["transformer/r_w_bias"].shape == (2, 2, 3)
    assert bundle.read("transformer/layer_0/rel_attn/qkv/kernel").shape == (8, 18)
    # 0.9 and 0.999 to the power of the two steps that the optimiser counts.
    assert bundle.read("beta1_power") == pytest.approx(0.9**2)
    assert bundle.read("global_step").dtype == np.int64
    assert bundle.read("global_step") == 1


def copied(folder: Path) -> Path:
    for file in FOLDER.glob("model.ckpt*"):
        shutil.copy(file, folder)
    return folder / "model.ckpt-1"


def test_missing_and_cut_off_files_are_named(tmp_path: Path) -> None:
    prefix = copied(tmp_path)
    data = tmp_path / "model.ckpt-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.ckpt-1' is cut off"):
        TensorBundle(prefix)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="data-00000-of-00001"):
        TensorBundle(prefix)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        TensorBundle(tmp_path / "nothing")


INDEX = Path(f"{PREFIX}.index").read_bytes()


@pytest.mark.parametrize("length", [0, 10, 47, 48, 100, len(INDEX) - 1])
def test_an_index_that_is_cut_off_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "model.index").write_bytes(INDEX[:length])
    with pytest.raises(ValueError, match=r"model\.index' is no index"):
        TensorBundle(tmp_path / "model")


@settings(max_examples=300)
@given(st.integers(0, len(INDEX) - 9), st.binary(min_size=1, max_size=8))
def test_a_changed_index_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, start: int, change: bytes
) -> None:
    prefix = copied(tmp_path_factory.getbasetemp())
    Path(f"{prefix}.index").write_bytes(INDEX[:start] + change + INDEX[start + len(change) :])
    with contextlib.suppress(ValueError, FileNotFoundError), one_sentence_about(prefix):
        bundle = TensorBundle(prefix)
        for name in bundle.variables:
            bundle.read(name)
