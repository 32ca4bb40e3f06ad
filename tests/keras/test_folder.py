"""One folder for both frameworks, and Keras' own files."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from transformer_xl.conversion.convert import convert
from transformer_xl.keras.heads import KerasTransfoXLForSequenceClassification, KerasTransfoXLLMHeadModel
from transformer_xl.keras.model import KerasTransfoXLModel
from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel
from transformer_xl.modeling.model import TransfoXLModel

from ..golden_files import GOLDEN_FOLDER
from .chain import assert_equal_numbers, random_ids, small_config

IDS = random_ids(2, 6)
DTYPES = ["float32", "mixed_bfloat16", "float32"]
PAIRS = [
    (TransfoXLModel, KerasTransfoXLModel),
    (TransfoXLLMHeadModel, KerasTransfoXLLMHeadModel),
    (TransfoXLForSequenceClassification, KerasTransfoXLForSequenceClassification),
]


@pytest.mark.parametrize(("torch_class", "keras_class"), PAIRS)
def test_a_folder_of_pytorch_opens_and_gives_the_same(torch_class: Any, keras_class: Any, tmp_path: Path) -> None:
    module = torch_class(small_config(pad_token_id=0)).eval()
    module.save_pretrained(tmp_path)
    model = keras_class.from_pretrained(tmp_path)
    with torch.no_grad():
        assert_equal_numbers(model(IDS)[0], module(torch.tensor(IDS).long())[0].numpy(), "first output")


@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": False, "div_val": 1, "untie_r": False, "d_embed": 12}])
@pytest.mark.parametrize(("torch_class", "keras_class"), PAIRS)
def test_pytorch_opens_what_keras_saved(
    torch_class: Any, keras_class: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    model = keras_class(small_config(pad_token_id=0, **fields))
    model.save_pretrained(tmp_path)
    module, report = torch_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        assert_equal_numbers(model(IDS)[0], module(torch.tensor(IDS).long())[0].numpy(), "first output")


def test_a_body_opens_from_the_folder_of_a_language_model_and_the_other_way_round(tmp_path: Path) -> None:
    model = KerasTransfoXLLMHeadModel(small_config(pad_token_id=0))
    model.save_pretrained(tmp_path / "language_model")
    body = KerasTransfoXLModel.from_pretrained(tmp_path / "language_model")
    expected = model(IDS, output_hidden_states=True).hidden_states[-1]
    assert_equal_numbers(body(IDS).last_hidden_state, expected, "hidden state")
    body.save_pretrained(tmp_path / "body")
    with pytest.warns(UserWarning, match="The file has no score"):
        classifier = KerasTransfoXLForSequenceClassification.from_pretrained(tmp_path / "body", num_labels=3)
    assert classifier(IDS).logits.shape == (2, 3)
    assert np.abs(classifier.score.kernel.numpy()).max() > 0


def test_missing_and_unexpected_weights_are_listed(tmp_path: Path) -> None:
    KerasTransfoXLLMHeadModel(small_config()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.layers.7.rogue"] = weights.pop("transformer.layers.0.dec_attn.o_net.weight")
    weights["crit.cluster_bias"] = np.zeros(5, "float32")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="do not belong together") as caught:
        KerasTransfoXLLMHeadModel.from_pretrained(tmp_path)
    assert "missing: transformer.layers.0.dec_attn.o_net.weight;" in str(caught.value)
    assert "unexpected: transformer.layers.7.rogue;" in str(caught.value)
    assert "of another shape: crit.cluster_bias (5,) instead of (2,)" in str(caught.value)


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    small_config().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="transformer-xl convert"):
        KerasTransfoXLModel.from_pretrained(tmp_path)


def test_weights_in_bfloat16_open(tmp_path: Path) -> None:
    module = TransfoXLLMHeadModel(small_config()).bfloat16()
    module.save_pretrained(tmp_path)
    model = KerasTransfoXLLMHeadModel.from_pretrained(tmp_path)
    expected = module.crit.cluster_weight.detach().float().numpy()
    assert np.array_equal(model.crit.cluster_weight.numpy(), expected)


def test_tied_weights_are_one_variable() -> None:
    tied = KerasTransfoXLLMHeadModel(small_config())
    untied = KerasTransfoXLLMHeadModel(small_config(tie_word_embeddings=False, proj_share_all_but_first=False))
    assert len(untied.weights) - len(tied.weights) == 3 + 2


@pytest.mark.parametrize(
    ("model_class", "dtype"), [(pair[1], dtype) for pair, dtype in zip(PAIRS, DTYPES, strict=True)]
)
def test_a_keras_file_gives_the_same_model(model_class: Any, dtype: str, tmp_path: Path) -> None:
    model = model_class(small_config(pad_token_id=0, num_labels=3), dtype=dtype)
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert type(other) is model_class
    assert other.dtype_policy == model.dtype_policy
    ours, expected = (keras.ops.cast(each(IDS)[0], "float32") for each in (other, model))
    assert_equal_numbers(ours, expected, "first output")


@pytest.mark.parametrize("name", ["keras_language_model", "keras_untied_projections"])
def test_an_old_tensorflow_file_opens_after_conversion(name: str, tmp_path: Path) -> None:
    convert(GOLDEN_FOLDER / "conversion" / name, tmp_path / "out")
    expected = json.loads((GOLDEN_FOLDER / "conversion" / name / "expected.json").read_text())
    model, tokens = KerasTransfoXLLMHeadModel.from_pretrained(tmp_path / "out"), np.array(expected["tokens"])
    first = model(tokens[:, :4])
    second = model(tokens[:, 4:], mems=first.mems)
    for ours, theirs in zip((first, second), expected["outputs"], strict=True):
        assert_equal_numbers(ours.logits, np.array(theirs, "float32"), "scores")


def test_keras_files_and_copies_hold_the_whole_model(tmp_path: Path) -> None:
    model = KerasTransfoXLLMHeadModel(small_config(), stateful_batch_size=2)
    model(IDS)
    expected = model.memory.numpy()
    model.save(tmp_path / "model.keras")
    for other in (
        keras.saving.load_model(tmp_path / "model.keras"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        assert np.array_equal(other.memory.numpy(), expected)
        assert all(
            np.array_equal(ours.numpy(), theirs.numpy())
            for ours, theirs in zip(other.trainable_weights, model.trainable_weights, strict=True)
        )
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = KerasTransfoXLLMHeadModel(small_config(), stateful_batch_size=2)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert np.array_equal(fresh.memory.numpy(), expected)
    lines: list[str] = []
    model.summary(print_fn=lambda line, line_break=True: lines.append(line))
    assert f"{model.count_params():,}" in "\n".join(lines)


@pytest.mark.skipif(keras.config.backend() == "torch", reason="this backend is PyTorch")
def test_folders_are_read_and_written_without_pytorch(tmp_path: Path) -> None:
    KerasTransfoXLLMHeadModel(small_config()).save_pretrained(tmp_path)
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from transformer_xl.keras import KerasTransfoXLLMHeadModel\n"
        f"model = KerasTransfoXLLMHeadModel.from_pretrained({str(tmp_path)!r})\n"
        f"model.save_pretrained({str(tmp_path / 'again')!r})\n"
        "print(model.generate([[1, 2, 3]], max_new_tokens=1).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 4)", done.stderr[-2000:]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
