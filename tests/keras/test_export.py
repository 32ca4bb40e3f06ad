"""What is exported gives what the model gives."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from transformer_xl.keras.heads import KerasTransfoXLLMHeadModel

from .chain import assert_equal_numbers, random_ids, small_config


@pytest.mark.skipif(keras.config.backend() == "torch", reason="a SavedModel needs TensorFlow or JAX")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_saved_model_scores_and_takes_one_step(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    model, ids = KerasTransfoXLLMHeadModel(small_config()), random_ids(3, 6)
    model.export_saved_model(tmp_path)
    exported = tensorflow.saved_model.load(str(tmp_path))
    scored = exported.score(ids, np.zeros((2, 7, 3, 16), "float32"))
    expected = model(ids)
    assert_equal_numbers(scored["prediction_scores"].numpy(), expected.logits, "scores")
    stepped = exported.step(ids[:, :1], scored["mems"])
    expected = model(ids[:, :1], mems=expected.mems)
    assert_equal_numbers(stepped["prediction_scores"].numpy(), expected.logits, "scores")
    assert_equal_numbers(stepped["mems"].numpy(), ops.stack(expected.mems), "memories")


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    sentence = "KERAS_BACKEND" if keras.config.backend() == "torch" else "mem_len=0"
    with pytest.raises(ValueError, match=sentence):
        KerasTransfoXLLMHeadModel(small_config(mem_len=0)).export_saved_model(tmp_path)
