"""Every form of call that the page of transformers 4 shows works, and none changes its arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from transformer_xl.keras.heads import KerasTransfoXLForSequenceClassification, KerasTransfoXLLMHeadModel
from transformer_xl.keras.model import KerasTransfoXLModel

from .chain import assert_equal_numbers, random_ids, small_config

IDS = random_ids(2, 6)
MEMS = [np.ones((7, 2, 16), "float32")] * 2


@pytest.fixture(scope="module")
def model() -> KerasTransfoXLLMHeadModel:
    return KerasTransfoXLLMHeadModel(small_config())


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(IDS, id="array"),
        pytest.param([IDS], id="list"),
        pytest.param((IDS,), id="tuple"),
        pytest.param([IDS, None], id="list with None"),
        pytest.param({"input_ids": IDS}, id="dict"),
    ],
)
def test_the_first_argument_may_hold_everything(model: KerasTransfoXLLMHeadModel, inputs: object) -> None:
    assert_equal_numbers(model(inputs).logits, model(input_ids=IDS).logits, "scores")


def test_memory_may_come_in_every_form(model: KerasTransfoXLLMHeadModel) -> None:
    expected = model(IDS, mems=MEMS).logits
    for output in (model([IDS, MEMS]), model((IDS, MEMS)), model({"input_ids": IDS, "mems": MEMS}), model(IDS, MEMS)):
        assert_equal_numbers(output.logits, expected, "scores")


def test_tensors_of_the_backend_are_taken(model: KerasTransfoXLLMHeadModel) -> None:
    assert_equal_numbers(model(ops.convert_to_tensor(IDS)).logits, model(IDS).logits, "scores")


def test_embeddings_may_be_given_alone() -> None:
    output = KerasTransfoXLModel(small_config())(inputs_embeds=np.ones((2, 6, 16), "float32"))
    assert output.last_hidden_state.shape == (2, 6, 16)


def test_outputs_are_named_fields_and_tuples(model: KerasTransfoXLLMHeadModel) -> None:
    output = model(IDS, output_hidden_states=True, output_attentions=True, labels=IDS, logits_to_keep=2)
    assert list(output) == ["loss", "losses", "prediction_scores", "mems", "hidden_states", "attentions"]
    assert output.losses.shape == (2, 5)
    assert output[2].shape == output["prediction_scores"].shape == output.logits.shape == (2, 2, 40)
    assert [layer.shape for layer in output.mems] == [(7, 2, 16)] * 2
    assert [state.shape for state in output.hidden_states] == [(2, 6, 16)] * 3
    assert [weights.shape for weights in output.attentions] == [(2, 2, 6, 13)] * 2
    scores, mems = model(IDS, return_dict=False)
    assert scores.shape == (2, 6, 40)
    assert len(mems) == 2
    assert model(IDS).loss is None
    assert model(IDS, use_cache=False).mems is None


def test_arguments_are_left_as_they_are(model: KerasTransfoXLLMHeadModel) -> None:
    labels, mems = np.full_like(IDS, -100), list(MEMS)
    model(IDS, mems=mems, labels=labels)
    assert all(ours is theirs for ours, theirs in zip(mems, MEMS, strict=True))
    assert (labels == -100).all()


def test_dropout_acts_in_training_only() -> None:
    model = KerasTransfoXLModel(small_config(dropout=0.5))
    assert_equal_numbers(model(IDS)[0], model(IDS, training=False)[0], "hidden state")
    in_order = (IDS, None, None, None, None, None, None, True)
    for output in (model(IDS, training=True), model(*in_order), model(list(in_order)), model.call(IDS, training=True)):
        assert np.abs(ops.convert_to_numpy(output[0] - model(IDS)[0])).max() > 0.1


@pytest.mark.filterwarnings("ignore:.*requires_grad=True")
def test_a_model_is_a_layer_of_other_models(model: KerasTransfoXLLMHeadModel) -> None:
    ids = keras.Input((None,), dtype="int32")
    output = model(ids)
    functional = keras.Model(ids, output)
    assert_equal_numbers(functional(IDS).logits, model(IDS).logits, "scores")
    assert_equal_numbers(functional.predict(IDS, verbose=0).logits, model(IDS).logits, "scores")


def test_the_weights_exist_before_the_first_call_under_paths_of_their_own() -> None:
    for model_class in (KerasTransfoXLModel, KerasTransfoXLLMHeadModel, KerasTransfoXLForSequenceClassification):
        model = model_class(small_config(untie_r=False, tie_word_embeddings=False))
        assert model.count_params() > 0
        assert len({weight.path for weight in model.weights}) == len(model.weights)


@pytest.mark.parametrize(
    ("inputs", "named", "sentence"),
    [
        ([[1, 2, 3]], {}, "give ids as an array"),
        ({"input_idz": IDS}, {}, "The inputs hold input_idz"),
        ([IDS] * 20, {}, "20 inputs were given in order, but this model takes 9: input_ids, mems"),
        (None, {}, "either input_ids or inputs_embeds"),
        (IDS, {"inputs_embeds": np.ones((2, 6, 16), "float32")}, "either input_ids or inputs_embeds"),
        (IDS, {"mems": MEMS[:1]}, "mems holds 1 tensors"),
        (IDS, {"head_mask": np.ones(3)}, "head_mask has the shape"),
        (IDS, {"labels": IDS[:, 1:]}, "labels has the shape"),
        (IDS, {"labels": IDS, "shift_labels": IDS}, "either labels"),
    ],
)
def test_a_wrong_call_is_told_in_one_sentence(
    model: KerasTransfoXLLMHeadModel, inputs: object, named: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        model(inputs, **named)


@pytest.mark.parametrize(
    "fields",
    [{"attn_type": 1}, {"attn_type": 2}, {"attn_type": 3, "d_head": 8}, {"share_position_projection": True}],
    ids=str,
)
def test_other_attention_is_refused_with_where_it_is(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the PyTorch classes"):
        KerasTransfoXLModel(small_config(**fields))
