"""The laws of the model: what it may see, what it must not, and that it changes nothing it is given."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformer_xl.configuration import LOCKED_DROPOUT_FIELDS
from transformer_xl.modeling import model as model_module
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.model import TransfoXLModel

from .tiny_models import (
    ATTENTION_TYPES,
    INITIAL_MEMORIES,
    VOCABULARY,
    assert_close,
    random_ids,
    read_in_segments,
    tiny_config,
    tiny_model,
)

RELATIVE_TYPES = (0, 1)
SETTINGS = list(itertools.product(ATTENTION_TYPES, INITIAL_MEMORIES, (False, True), (0, 2, 6), (-1, 2)))


@pytest.mark.parametrize("attn_type", RELATIVE_TYPES)
@pytest.mark.parametrize("changes", [{}, {"clamp_len": 3}, {"pre_lnorm": True}, {"tgt_len": 1, "n_layer": 3}], ids=str)
def test_two_segments_with_memory_are_like_one_long_segment(attn_type: int, changes: dict[str, Any]) -> None:
    model = tiny_model(attn_type=attn_type, initial_memory="empty", mem_len=20, **changes)
    ids = random_ids(2, 14)
    assert_close(read_in_segments(model, ids, [6, 8])[0], read_in_segments(model, ids, [14])[0])


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.sampled_from(RELATIVE_TYPES),
    st.sampled_from([-1, 4]),
    st.booleans(),
)
def test_any_segmentation_gives_the_same_result_if_the_memory_covers_the_past(
    lengths: list[int], attn_type: int, clamp_len: int, same_length: bool
) -> None:
    # With same_length every token sees mem_len positions, so that a short memory covers all of the past that it sees.
    model = tiny_model(
        attn_type=attn_type,
        initial_memory="empty",
        clamp_len=clamp_len,
        same_length=same_length,
        mem_len=3 if same_length else 42,
    )
    ids = random_ids(1, sum(lengths))
    assert_close(read_in_segments(model, ids, lengths)[0], read_in_segments(model, ids, [sum(lengths)])[0])


@pytest.mark.parametrize("attn_type", RELATIVE_TYPES)
def test_memory_reaches_back_through_all_layers(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type, mem_len=2, n_layer=3, same_length=True, initial_memory="empty")
    ids = random_ids(1, 9)
    changed = ids.clone()
    changed[0, 4] = (changed[0, 4] + 1) % VOCABULARY
    lengths = [1] * 9
    difference = (
        (read_in_segments(model, ids, lengths)[0] - read_in_segments(model, changed, lengths)[0])[0].abs().amax(1)
    )
    # Each of the 3 layers sees one position further back.
    assert difference.gt(0).nonzero().flatten().tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(("attn_type", "initial_memory", "same_length", "mem_len", "clamp_len"), SETTINGS)
@torch.no_grad()
def test_nobody_sees_the_future(
    attn_type: int, initial_memory: str, same_length: bool, mem_len: int, clamp_len: int
) -> None:
    model = tiny_model(
        attn_type=attn_type,
        initial_memory=initial_memory,
        same_length=same_length,
        mem_len=mem_len,
        clamp_len=clamp_len,
        tgt_len=2,
    )
    mems, ids = model(random_ids(1, 3)).mems, random_ids(1, 5)
    expected = model(ids, mems=mems)
    for position in range(5):
        changed = ids.clone()
        changed[0, position] = (changed[0, position] + 1) % VOCABULARY
        output = model(changed, mems=mems)
        assert torch.equal(output.logits[:, :position], expected.logits[:, :position])
        assert not torch.equal(output.logits[:, position:], expected.logits[:, position:])


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("mem_len", [0, 3])
def test_the_gradient_of_a_token_reaches_no_later_one(attn_type: int, mem_len: int) -> None:
    model = tiny_model(attn_type=attn_type, same_length=True, mem_len=mem_len)
    embeddings = torch.randn(1, 5, 16, requires_grad=True)
    model(inputs_embeds=embeddings).logits[0, 2].sum().backward()
    assert embeddings.grad[0].any(-1).tolist() == [True, True, True, False, False]


def test_same_length_lets_every_token_see_mem_len_positions() -> None:
    model = tiny_model(same_length=True, mem_len=3)
    weights = model(random_ids(1, 5), output_attentions=True).attentions[0][0, 0]
    assert weights.gt(0).sum(-1).tolist() == [3] * 5
    assert all(weights[i, i + 1 : i + 4].all() for i in range(5))


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_attention_weights_sum_to_one_and_have_a_row_for_each_layer(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    output = model(random_ids(2, 4), output_attentions=True, output_hidden_states=True)
    assert [weights.shape for weights in output.attentions] == [(2, 2, 4, 10)] * 2
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4))
    assert [states.shape for states in output.hidden_states] == [(2, 4, 16)] * 3


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_asking_for_weights_does_not_change_the_numbers(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type, clamp_len=3)
    mems, ids = model(random_ids(2, 6)).mems, random_ids(2, 4)
    inputs = {"mems": mems, "head_mask": torch.tensor([0.5, 1.0])}
    assert_close(model(ids, **inputs, output_attentions=True).logits, model(ids, **inputs).logits)


def test_hidden_states_end_with_the_last_and_begin_with_the_embeddings() -> None:
    model = tiny_model(TransfoXLModel)
    ids = random_ids(2, 4)
    output = model(ids, output_hidden_states=True)
    assert torch.equal(output.hidden_states[0], model.word_emb(ids))
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_embeddings_may_be_given_in_the_place_of_ids(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    mems, ids = model(random_ids(2, 5)).mems, random_ids(2, 4)
    from_embeddings = model(inputs_embeds=model.transformer.word_emb(ids), mems=mems)
    assert torch.equal(from_embeddings.logits, model(ids, mems=mems).logits)


@pytest.mark.parametrize("inputs", [{}, {"input_ids": random_ids(1, 2), "inputs_embeds": torch.zeros(1, 2, 16)}])
def test_ids_and_embeddings_are_given_one_at_a_time(inputs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        tiny_model()(**inputs)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_a_masked_head_is_not_heard_and_one_mask_serves_all_layers(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    ids = random_ids(2, 4)
    masked = model(ids, head_mask=torch.tensor([0, 1])).logits
    assert torch.equal(model(ids, head_mask=torch.tensor([[0, 1], [0, 1]])).logits, masked)
    assert not torch.allclose(masked, model(ids).logits)
    with torch.no_grad():
        for layer in model.transformer.layers:
            layer.dec_attn.o_net.weight[:, :8] = 0
    assert_close(model(ids).logits, masked)


def test_each_layer_may_have_its_own_head_mask() -> None:
    model = tiny_model()
    ids = random_ids(2, 4)
    weights = model(ids, head_mask=torch.tensor([[1, 0], [0, 1]]), output_attentions=True).attentions
    assert [[bool(head.any()) for head in layer[0]] for layer in weights] == [[True, False], [False, True]]


@pytest.mark.parametrize("shape", [(3,), (1, 2), (3, 2), (2, 2, 1)])
def test_a_head_mask_of_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"head_mask has the shape .*\(2,\).*\(2, 2\)"):
        tiny_model()(random_ids(1, 2), head_mask=torch.ones(shape))


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_no_argument_and_no_configuration_is_changed(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    labels = random_ids(2, 4)
    labels[:, :2] = -100
    arguments = {
        "input_ids": random_ids(2, 4),
        "labels": labels,
        "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]),
        "head_mask": torch.tensor([1.0, 0.5]),
        "mems": model(random_ids(2, 6)).mems,
    }
    before = {name: [t.clone() for t in ([*a] if name == "mems" else [a])] for name, a in arguments.items()}
    configuration, state = model.config.to_dict(), {name: t.clone() for name, t in model.state_dict().items()}
    model(**arguments, output_attentions=True).loss.backward()
    model(**{**arguments, "labels": None, "shift_labels": torch.full((2, 4), -100)}).loss.backward()
    embeddings = torch.randn(2, 4, 16)
    kept = embeddings.clone()
    model(inputs_embeds=embeddings)
    assert torch.equal(embeddings, kept)
    for name, tensors in before.items():
        after = arguments[name] if name == "mems" else [arguments[name]]
        assert all(map(torch.equal, after, tensors)), name
    assert model.config.to_dict() == configuration
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
def test_the_body_never_asks_the_device_for_a_number(attn_type: int, initial_memory: str) -> None:
    # Tensors of the meta device have no numbers: whatever would wait for one fails.
    model = tiny_model(TransfoXLModel, attn_type=attn_type, initial_memory=initial_memory, same_length=True).to("meta")
    ids, mask = torch.zeros(2, 5, dtype=torch.long, device="meta"), torch.ones(2, 5, device="meta")
    mems = model(ids).mems
    output = model(ids, mems=mems, attention_mask=mask, head_mask=torch.ones(2, device="meta"), output_attentions=True)
    assert output.last_hidden_state.device.type == "meta"


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_the_mask_is_built_once_for_all_layers(monkeypatch: pytest.MonkeyPatch, attn_type: int) -> None:
    calls, build = [], model_module.visible_positions
    monkeypatch.setattr(model_module, "visible_positions", lambda *args, **kw: calls.append(1) or build(*args, **kw))
    tiny_model(attn_type=attn_type, n_layer=3)(random_ids(1, 4))
    assert len(calls) == 1


def test_use_cache_says_whether_memory_is_returned() -> None:
    model, ids = tiny_model(), random_ids(2, 4)
    assert model(ids, use_cache=False).mems is None
    assert len(model(ids, use_cache=True).mems) == 2
    model.config.use_cache = False
    assert model(ids).mems is None


def test_the_arguments_of_the_page_work_by_position_and_a_tuple_has_the_order_of_transformers_4() -> None:
    model = tiny_model(TransfoXLModel)
    ids, head_mask = random_ids(2, 4), torch.tensor([1.0, 0.5])
    mems = model(random_ids(2, 6)).mems
    named = model(
        input_ids=ids,
        mems=mems,
        head_mask=head_mask,
        output_attentions=True,
        output_hidden_states=True,
        return_dict=True,
    )
    hidden, new_mems, hidden_states, attentions = model(ids, mems, head_mask, None, True, True, False)
    assert torch.equal(hidden, named.last_hidden_state)
    assert all(map(torch.equal, new_mems, named.mems))
    assert all(map(torch.equal, hidden_states, named.hidden_states))
    assert all(map(torch.equal, attentions, named.attentions))
    assert len(model(ids, return_dict=False)) == 2
    assert model(None, mems, None, model.word_emb(ids))[0].shape == (2, 4, 16)


def test_what_the_configuration_asks_for_is_returned() -> None:
    model = tiny_model(TransfoXLModel, output_attentions=True, output_hidden_states=True, return_dict=False)
    hidden, mems, hidden_states, attentions = model(random_ids(1, 3))
    assert hidden.shape == (1, 3, 16)
    assert (len(mems), len(hidden_states), len(attentions)) == (2, 3, 2)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_give_the_same_up_to_rounding(attn_type: int, dtype: torch.dtype) -> None:
    model = tiny_model(attn_type=attn_type, clamp_len=20)
    ids, mask = random_ids(2, 5), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    results = []
    for precision in (torch.float32, dtype):
        model = model.to(precision)
        mems = model(ids).mems
        output = model(ids, mems=mems, attention_mask=mask, labels=ids, head_mask=torch.ones(2), output_attentions=True)
        output.loss.backward()
        assert {layer.dtype for layer in output.mems} == {output.attentions[0].dtype} == {precision}
        assert output.losses.dtype == torch.float32
        results.append(output.loss)
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("div_val", [1, 2])
def test_autocast_trains(attn_type: int, dtype: torch.dtype, div_val: int) -> None:
    model = tiny_model(attn_type=attn_type, div_val=div_val).train()
    ids = random_ids(2, 5)
    exact = model(ids, mems=model(ids).mems, labels=ids).loss
    with torch.autocast("cpu", dtype):
        loss = model(ids, mems=model(ids).mems, labels=ids, head_mask=torch.ones(2)).loss
        with_weights = model(ids, mems=model(ids).mems, labels=ids, output_attentions=True).loss
    loss.backward()
    assert loss.dtype == torch.float32
    for other in (loss, with_weights):
        torch.testing.assert_close(other, exact, rtol=0.05, atol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_dropout_is_drawn_in_training_and_not_in_evaluation() -> None:
    model, ids = tiny_model(dropout=0.5, dropatt=0.5), random_ids(2, 4)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("dropout", ["dropout", "dropatt"])
@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_each_kind_of_dropout_is_felt(dropout: str, attn_type: int) -> None:
    model, ids = tiny_model(attn_type=attn_type, **{dropout: 0.5}).train(), random_ids(2, 4)
    assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_embeddings_the_last_hidden_state_and_encoded_distances_are_dropped(attn_type: int) -> None:
    model = tiny_model(TransfoXLModel, attn_type=attn_type, dropout=0.5).train()
    shapes = []
    for module in (model.drop, model.drop_output):
        module.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape)))
    model(random_ids(2, 4))
    assert sorted(shapes) == [(2, 4, 16), (2, 4, 16), *([(10, 16)] if attn_type == 0 else [])]


SMALL_CORPUS_DROPOUTS = ("word_dropout", *LOCKED_DROPOUT_FIELDS)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("dropout", SMALL_CORPUS_DROPOUTS)
def test_each_dropout_of_small_corpora_is_felt_in_training_only(dropout: str, attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type, **{dropout: 0.5})
    plain = TransfoXLLMHeadModel(tiny_config(attn_type=attn_type)).eval()
    plain.load_state_dict(model.state_dict())
    ids = random_ids(2, 4)
    assert torch.equal(model(ids).logits, plain(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_a_locked_dropout_takes_the_place_of_the_plain_one() -> None:
    off = dict.fromkeys(LOCKED_DROPOUT_FIELDS, 0.0)
    model, ids = tiny_model(dropout=0.5, **off).train(), random_ids(2, 4)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_the_output_is_dropped_alike_at_all_positions() -> None:
    model = tiny_model(TransfoXLModel, locked_output_dropout=0.5).train()
    dropped = model(random_ids(2, 6)).last_hidden_state == 0
    assert dropped.any()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_every_parameter_gets_a_gradient_whatever_was_read(attn_type: int) -> None:
    model = tiny_model(TransfoXLLMHeadModel, attn_type=attn_type, tie_word_embeddings=False, tie_projs=[False] * 3)
    ids = random_ids(2, 4) % 10
    model(ids, mems=model(ids).mems, labels=ids).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert not model.crit.out_layers[1].weight.grad.any()
    assert not model.transformer.word_emb.emb_layers[2].weight.grad.any()


def test_an_empty_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="The segment is empty"):
        tiny_model()(torch.zeros(2, 0, dtype=torch.long))
