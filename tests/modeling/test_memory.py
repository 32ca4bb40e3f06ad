"""Memory comes in and goes out; what is reset, reordered, detached or moved behaves as it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transformer_xl.modeling import memory

from .tiny_models import ATTENTION_TYPES, INITIAL_MEMORIES, assert_close, random_ids, read_in_segments, tiny_model


def some_memory() -> list[Tensor]:
    return [torch.randn(4, 3, 2) for _ in range(2)]


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
@pytest.mark.parametrize("same_length", [False, True])
def test_a_reset_row_goes_on_as_at_the_very_beginning_and_the_others_as_if_nothing_happened(
    attn_type: int, initial_memory: str, same_length: bool
) -> None:
    model = tiny_model(attn_type=attn_type, initial_memory=initial_memory, same_length=same_length)
    first, second = random_ids(3, 4), random_ids(3, 9)
    _, mems = read_in_segments(model, first, [4])
    expected, _ = read_in_segments(model, second, [4, 5], mems)
    fresh, _ = read_in_segments(model, second, [4, 5])
    scores, _ = read_in_segments(model, second, [4, 5], memory.reset(mems, torch.tensor([False, True, False])))
    assert_close(scores[1], fresh[1], "reset row")
    assert_close(scores[[0, 2]], expected[[0, 2]], "other rows")
    assert not torch.allclose(expected[1], fresh[1], atol=1e-3)


def test_reset_changes_the_chosen_rows_of_every_layer_and_no_argument() -> None:
    mems, rows = some_memory(), torch.tensor([True, False, True])
    before = [layer.clone() for layer in mems]
    for layer, old in zip(memory.reset(mems, rows), before, strict=True):
        assert not layer[:, rows].any()
        assert torch.equal(layer[:, ~rows], old[:, ~rows])
    assert all(map(torch.equal, mems, before))


@pytest.mark.parametrize("rows", [torch.tensor([True, False]), torch.tensor([0, 1, 0]), torch.tensor(True)])
def test_reset_refuses_what_is_not_one_boolean_for_each_row(rows: Tensor) -> None:
    with pytest.raises(ValueError, match=r"memory has 3 rows.*boolean tensor of shape \(3,\)"):
        memory.reset(some_memory(), rows)


def test_reorder_takes_rows_in_any_order_and_number() -> None:
    mems = some_memory()
    for layer, old in zip(memory.reorder(mems, torch.tensor([2, 2, 0, 1])), mems, strict=True):
        assert torch.equal(layer, old[:, [2, 2, 0, 1]])


def test_reordered_memory_belongs_to_the_reordered_texts() -> None:
    model = tiny_model()
    first, second, order = random_ids(3, 4), random_ids(3, 4), torch.tensor([1, 2, 0])
    _, mems = read_in_segments(model, first, [4])
    expected, _ = read_in_segments(model, second, [4], mems)
    scores, _ = read_in_segments(model, second[order], [4], memory.reorder(mems, order))
    assert_close(scores, expected[order])


def test_detach_cuts_the_graph_and_keeps_the_numbers() -> None:
    mems = [layer.requires_grad_() * 2 for layer in some_memory()]
    for layer, old in zip(memory.detach(mems), mems, strict=True):
        assert not layer.requires_grad
        assert torch.equal(layer, old)


def test_move_changes_device_and_dtype() -> None:
    moved = memory.move(some_memory(), "meta", torch.bfloat16)
    assert all((layer.device.type, layer.dtype) == ("meta", torch.bfloat16) for layer in moved)
    assert all(layer.dtype == torch.float32 for layer in memory.move(some_memory(), "cpu"))


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("mem_len", [3, 6, 20])
def test_the_memory_of_a_layer_is_its_inputs_at_the_last_positions(attn_type: int, mem_len: int) -> None:
    model = tiny_model(attn_type=attn_type, mem_len=mem_len, initial_memory="empty")
    mems = None
    seen = [torch.empty(0, 2, 16) for _ in range(2)]
    for length in (5, 4, 6):
        output = model(random_ids(2, length), mems=mems, output_hidden_states=True)
        mems = output.mems
        for i, layer in enumerate(mems):
            new = output.hidden_states[i].transpose(0, 1)
            assert_close(layer[-length:], new[-mem_len:])
            assert layer.shape == (min(mem_len, len(seen[i]) + length), 2, 16)
            seen[i] = torch.cat([seen[i], new])
        if attn_type in (0, 1):
            assert all(torch.equal(layer, past[-mem_len:]) for layer, past in zip(mems, seen, strict=True))


def test_memory_carries_no_gradient_to_earlier_segments() -> None:
    model = tiny_model()
    output = model(random_ids(1, 4))
    assert output.logits.requires_grad
    assert not any(layer.requires_grad for layer in output.mems)


def test_memory_is_a_copy_and_not_a_view_of_the_callers_tensor() -> None:
    model = tiny_model(initial_memory="empty")
    embeddings = torch.randn(1, 4, 16)
    mems = model(inputs_embeds=embeddings).mems
    before = [layer.clone() for layer in mems]
    embeddings.zero_()
    assert all(map(torch.equal, mems, before))


def test_zeros_are_attended_to_and_an_empty_memory_is_not() -> None:
    ids = random_ids(1, 3)
    zeros = tiny_model(initial_memory="zeros")(ids, output_attentions=True).attentions[0]
    empty = tiny_model(initial_memory="empty")(ids, output_attentions=True).attentions[0]
    assert zeros.shape[-1] == 9
    assert zeros[..., :6].all()
    assert empty.shape[-1] == 3


def test_rows_of_zeros_in_an_empty_memory_are_like_no_rows_at_all() -> None:
    model = tiny_model(initial_memory="empty")
    ids = random_ids(2, 3)
    padded = [torch.zeros(4, 2, 16) for _ in range(2)]
    assert_close(model(ids, mems=padded).logits, model(ids).logits)


@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
def test_init_mems_is_where_a_text_begins(initial_memory: str) -> None:
    model = tiny_model(initial_memory=initial_memory)
    ids = random_ids(2, 3)
    mems = model.init_mems(2)
    assert {layer.shape for layer in mems} == {(6 if initial_memory == "zeros" else 0, 2, 16)}
    assert torch.equal(model(ids, mems=mems).logits, model(ids).logits)


def test_without_memory_none_comes_in_and_none_goes_out() -> None:
    model = tiny_model(mem_len=0)
    assert model.init_mems(2) is None
    assert model(random_ids(2, 3)).mems is None


def test_the_length_of_the_memory_may_be_changed_between_segments() -> None:
    model = tiny_model(mem_len=3, initial_memory="empty")
    ids = random_ids(1, 12)
    longer = tiny_model(mem_len=20, initial_memory="empty")
    longer.load_state_dict(model.state_dict())
    model.reset_memory_length(20)
    scores, mems = read_in_segments(model, ids, [4, 4, 4])
    assert mems[0].shape[0] == 12
    assert_close(scores, read_in_segments(longer, ids, [12])[0])


@pytest.mark.parametrize("attn_type", [0, 1])
@pytest.mark.parametrize("ext_len", [1, 3])
def test_extended_context_reads_tokens_again_and_finds_them_unchanged(attn_type: int, ext_len: int) -> None:
    model = tiny_model(attn_type=attn_type, ext_len=ext_len, mem_len=30, initial_memory="empty")
    ids = random_ids(2, 12)
    whole = model(ids).logits
    mems, start = None, 0
    while start + ext_len < ids.shape[1]:
        output = model(ids[:, start : start + 5], mems=mems)
        assert_close(output.logits, whole[:, start : start + 5])
        mems = output.mems
        assert mems[0].shape[0] == min(start + 5, ids.shape[1]) - ext_len
        start += 5 - ext_len


def test_a_segment_shorter_than_the_extended_context_is_not_remembered() -> None:
    model = tiny_model(ext_len=4, initial_memory="empty")
    mems = model(random_ids(1, 7)).mems
    after = model(random_ids(1, 2), mems=mems).mems
    assert all(map(torch.equal, after, mems))


@pytest.mark.parametrize(
    "shapes",
    [
        [(6, 2, 16)],
        [(6, 2, 16)] * 3,
        [(6, 3, 16)] * 2,
        [(6, 2, 15)] * 2,
        [(6, 2, 16), (5, 2, 16)],
        [(2, 16)] * 2,
        [],
    ],
)
def test_memories_of_a_wrong_shape_are_refused_with_their_shapes(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=rf"mems holds {len(shapes)} tensors.*need 2 tensors.*\(length, 2, 16\)"):
        tiny_model()(random_ids(2, 3), mems=[torch.zeros(shape) for shape in shapes])
