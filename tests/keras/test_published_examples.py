"""The TensorFlow examples of the documentation of transformers 4 run on a folder that PyTorch saved."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import ops

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.model import TransfoXLModel
from transformer_xl.text.tokenizer import TransfoXLTokenizer

from .chain import assert_equal_numbers, small_config

WORDS = ["Hello", ",", "my", "dog", "is", "cute", "<eos>", "<unk>", *(f"word{i}" for i in range(32))]
ON_TENSORFLOW = keras.config.backend() == "tensorflow"

MODEL = """
from transformers import AutoTokenizer
from transformer_xl import TFTransfoXLModel
import tensorflow as tf

tokenizer = AutoTokenizer.from_pretrained("transfo-xl-wt103")
model = TFTransfoXLModel.from_pretrained("transfo-xl-wt103")

inputs = tokenizer("Hello, my dog is cute", return_tensors="tf")
outputs = model(inputs)

last_hidden_states = outputs.last_hidden_state
"""
LANGUAGE_MODEL = """
from transformers import AutoTokenizer
from transformer_xl import TFTransfoXLLMHeadModel
import tensorflow as tf

tokenizer = AutoTokenizer.from_pretrained("transfo-xl-wt103")
model = TFTransfoXLLMHeadModel.from_pretrained("transfo-xl-wt103")

inputs = tokenizer("Hello, my dog is cute", return_tensors="tf")
outputs = model(inputs)
logits = outputs.logits
"""
CLASSIFICATION = """
from transformers import AutoTokenizer
from transformer_xl import TFTransfoXLForSequenceClassification
import tensorflow as tf

tokenizer = AutoTokenizer.from_pretrained("transfo-xl-wt103")
model = TFTransfoXLForSequenceClassification.from_pretrained("transfo-xl-wt103")

inputs = tokenizer("Hello, my dog is cute", return_tensors="tf")

logits = model(**inputs).logits

predicted_class_id = int(tf.math.argmax(logits, axis=-1)[0])
# To train a model on `num_labels` classes, you can pass `num_labels=num_labels` to `.from_pretrained(...)`
num_labels = len(model.config.id2label)
model = TFTransfoXLForSequenceClassification.from_pretrained("transfo-xl-wt103", num_labels=num_labels)

labels = tf.constant(1)
loss = model(**inputs, labels=labels).loss
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "transfo-xl-wt103"
    torch.manual_seed(0)
    TransfoXLLMHeadModel(small_config()).save_pretrained(folder)
    TransfoXLTokenizer(symbols=WORDS).save_pretrained(folder)
    return folder


def run(example: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that an example leaves; elsewhere than on TensorFlow with arrays of NumPy and the neutral names."""
    monkeypatch.chdir(folder.parent)
    if not ON_TENSORFLOW:
        for tensorflow, numpy in (
            ("import tensorflow as tf", "import numpy as np"),
            ('"tf"', '"np"'),
            ("TFTransfo", "KerasTransfo"),
            ("tf.math", "keras.ops"),
            ("tf.constant", "np.array"),
        ):
            example = example.replace(tensorflow, numpy)
        example = "import keras\n" + example
    names: dict[str, Any] = {}
    exec(example, names)
    return names


def test_the_model_gives_the_hidden_states_of_pytorch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(MODEL, folder, monkeypatch)
    with torch.no_grad():
        expected = TransfoXLModel.from_pretrained(folder)(torch.arange(6)[None]).last_hidden_state
    assert_equal_numbers(names["last_hidden_states"], expected.numpy(), "hidden states")
    assert not ON_TENSORFLOW or type(names["last_hidden_states"]).__module__.startswith("tensorflow")


def test_the_language_model_gives_the_scores_of_pytorch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(LANGUAGE_MODEL, folder, monkeypatch)
    with torch.no_grad():
        expected = TransfoXLLMHeadModel.from_pretrained(folder)(torch.arange(6)[None]).logits
    assert_equal_numbers(names["logits"], expected.numpy(), "scores")


def test_the_classifier_classifies_and_has_a_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="The file has no score"):
        names = run(CLASSIFICATION, folder, monkeypatch)
    logits = ops.convert_to_numpy(names["model"](**names["inputs"]).logits)
    assert names["predicted_class_id"] in (0, 1)
    expected = np.log(np.exp(logits[0]).sum()) - logits[0, 1]
    np.testing.assert_allclose(ops.convert_to_numpy(names["loss"]), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["Model", "LMHeadModel", "ForSequenceClassification"])
def test_the_constructors_and_calls_of_the_page_work(name: str) -> None:
    import transformer_xl

    foreign = contextlib.nullcontext() if ON_TENSORFLOW else pytest.warns(UserWarning, match="KERAS_BACKEND=tensorflow")
    with foreign:
        model_class = getattr(transformer_xl, f"TFTransfoXL{name}")
    model = model_class(small_config(pad_token_id=0))
    input_ids, mems = np.arange(1, 7)[None], [np.zeros((7, 1, 16), "float32")] * 2
    expected = model(input_ids)
    with_mask = np.array([1.0, 0.0], "float32")
    embeddings = model.transformer.word_emb(input_ids)
    for output in (
        model(input_ids, mems, None, None, False, False, True),
        model([input_ids, mems]),
        model((input_ids, None)),
        model({"input_ids": input_ids, "mems": mems}),
        model(input_ids=input_ids, mems=mems, training=False),
        model(inputs_embeds=embeddings),
        model(input_ids, head_mask=np.ones((2, 2), "float32")),
        model(input_ids, return_dict=False),
    ):
        assert_equal_numbers(output[0], expected[0], "first output")
    silenced = model(input_ids, head_mask=with_mask, output_attentions=True)
    assert not ops.convert_to_numpy(silenced.attentions[0])[:, 1].any()
    assert len(model(input_ids, output_hidden_states=True).hidden_states) == 3
    assert type(expected).__name__.startswith(("KerasTransfoXL", "TFTransfoXL"))
