"""A padded row gives what the row alone gives: on either side, with holes, and in all later segments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer_xl.modeling.padding import arrange

from .tiny_models import ATTENTION_TYPES, INITIAL_MEMORIES, assert_close, random_ids, tiny_model

MASKS = {
    "left": [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
    "right": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
    "holes": [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]],
}


def assert_padded_rows_are_like_rows_alone(model: Any, segments: list[Tensor], masks: list[Tensor]) -> None:
    """Reads segments on the memory of those before, all rows together and each row alone without its padding."""
    mems, mems_alone = None, [None] * len(segments[0])
    for number, (ids, mask) in enumerate(zip(segments, masks, strict=True)):
        output = model(ids, mems=mems, attention_mask=mask)
        mems = output.mems
        for row, is_token in enumerate(mask.bool()):
            if is_token.any():
                alone = model(ids[row : row + 1, is_token], mems=mems_alone[row])
                mems_alone[row] = alone.mems
                assert_close(output.logits[row, is_token], alone.logits[0], f"segment {number}, row {row}")


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
@pytest.mark.parametrize("side", MASKS)
@torch.no_grad()
def test_a_padded_row_is_like_the_row_alone_now_and_in_later_segments(
    attn_type: int, initial_memory: str, side: str
) -> None:
    model = tiny_model(attn_type=attn_type, initial_memory=initial_memory)
    mask = torch.tensor(MASKS[side])
    assert_padded_rows_are_like_rows_alone(
        model, [random_ids(3, 5) for _ in range(3)], [mask, mask.roll(1, dims=0), torch.ones_like(mask)]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"mem_len": 0},
        {"mem_len": 3},
        {"mem_len": 20},
        {"same_length": True, "mem_len": 3},
        {"same_length": True, "mem_len": 0},
        {"clamp_len": 2},
        {"pre_lnorm": True},
        {"untie_r": False, "n_layer": 3},
        {"attn_type": 1, "clamp_len": 2, "tgt_len": 1},
        {"attn_type": 2, "clamp_len": 2, "pre_lnorm": True},
        {"attn_type": 3, "same_length": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
@torch.no_grad()
def test_padding_is_not_felt_under_any_setting(changes: dict[str, Any], initial_memory: str) -> None:
    model = tiny_model(**changes, initial_memory=initial_memory)
    masks = [torch.tensor(MASKS[side]) for side in ("left", "right", "holes")]
    assert_padded_rows_are_like_rows_alone(model, [random_ids(3, 5) for _ in masks], masks)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=2), min_size=2, max_size=3),
    st.sampled_from(ATTENTION_TYPES),
    st.sampled_from(INITIAL_MEMORIES),
    st.booleans(),
)
@torch.no_grad()
def test_no_pattern_of_padding_is_felt(
    patterns: list[list[list[bool]]], attn_type: int, initial_memory: str, same_length: bool
) -> None:
    model = tiny_model(attn_type=attn_type, initial_memory=initial_memory, same_length=same_length)
    masks = [torch.tensor(pattern) for pattern in patterns]
    if attn_type in (
        2,
        3,
    ):  # These add positions to the memory at every call, even to that of a row which reads nothing.
        masks = [mask | (torch.arange(4) == 2) for mask in masks]
    assert_padded_rows_are_like_rows_alone(model, [random_ids(2, 4) for _ in masks], masks)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_what_stands_in_padding_is_not_felt_at_all(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    ids, mask = random_ids(3, 5), torch.tensor(MASKS["holes"])
    other = torch.where(mask.bool(), ids, (ids + 1) % 50)
    first, second = model(ids, attention_mask=mask), model(other, attention_mask=mask)
    assert torch.equal(first.logits[mask.bool()], second.logits[mask.bool()])
    assert all(map(torch.equal, first.mems, second.mems))


@pytest.mark.parametrize("attn_type", [0, 1])
def test_a_row_of_nothing_but_padding_keeps_its_memory(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    mems = model(random_ids(2, 6)).mems
    after = model(random_ids(2, 4), mems=mems, attention_mask=torch.tensor([[1] * 4, [0] * 4])).mems
    assert all(torch.equal(layer[:, 1], before[:, 1]) for layer, before in zip(after, mems, strict=True))


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_the_gradient_of_a_padded_row_is_that_of_the_row_alone(attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type)
    ids = random_ids(1, 5)
    is_token = torch.tensor([[0, 1, 1, 0, 1]])
    gradients = []
    for row, mask in ((ids, is_token), (ids[is_token.bool()][None], None)):
        labels = row if mask is None else row.masked_fill(mask == 0, -100)
        model.zero_grad()
        model(row, attention_mask=mask, shift_labels=labels).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for ours, expected in zip(*gradients, strict=True):
        assert_close(ours, expected)


@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
def test_attention_weights_stand_where_queries_and_keys_stood(initial_memory: str) -> None:
    model = tiny_model(initial_memory=initial_memory)
    mems = model(random_ids(3, 6)).mems
    ids, mask = random_ids(3, 5), torch.tensor(MASKS["holes"])
    weights = model(ids, mems=mems, attention_mask=mask, output_attentions=True).attentions
    for row, is_token in enumerate(mask.bool()):
        row_mems = [layer[:, row : row + 1] for layer in mems]
        alone = model(ids[row : row + 1, is_token], mems=row_mems, output_attentions=True).attentions
        exists = torch.cat([torch.ones(6, dtype=torch.bool), is_token])
        for ours, expected in zip(weights, alone, strict=True):
            assert_close(ours[row][:, is_token][..., exists], expected[0])
            assert not ours[row][:, is_token][..., ~exists].any()


def test_hidden_states_stand_where_the_tokens_stood() -> None:
    model = tiny_model()
    ids, mask = random_ids(3, 5), torch.tensor(MASKS["right"])
    states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for row, is_token in enumerate(mask.bool()):
        alone = model(ids[row : row + 1, is_token], output_hidden_states=True).hidden_states
        for ours, expected in zip(states, alone, strict=True):
            assert_close(ours[row, is_token], expected[0])


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_a_mask_of_ones_in_any_dtype_changes_nothing(dtype: torch.dtype) -> None:
    model, ids = tiny_model(), random_ids(2, 5)
    assert_close(model(ids, attention_mask=torch.ones(2, 5, dtype=dtype)).logits, model(ids).logits)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
def test_memory_that_the_mask_leaves_out_is_like_shorter_memory(attn_type: int, initial_memory: str) -> None:
    model = tiny_model(attn_type=attn_type, initial_memory=initial_memory)
    mems, ids = model(random_ids(2, 6)).mems, random_ids(2, 4)
    mask = torch.ones(2, 6 + 4)
    mask[:, :2] = 0
    masked = model(ids, mems=mems, attention_mask=mask).logits
    assert_close(masked, model(ids, mems=[layer[2:] for layer in mems]).logits)
    assert not torch.allclose(masked, model(ids, mems=mems).logits, atol=1e-3)


def test_each_row_may_leave_out_other_parts_of_memory_and_segment() -> None:
    model = tiny_model(initial_memory="empty")
    mems, ids = model(random_ids(2, 6)).mems, random_ids(2, 3)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 0]])
    logits = model(ids, mems=mems, attention_mask=mask).logits
    first = model(ids[:1, 1:], mems=[layer[3:, :1] for layer in mems]).logits
    second = model(ids[1:, :2], mems=[layer[1:, 1:] for layer in mems]).logits
    assert_close(logits[:1, 1:], first)
    assert_close(logits[1:, :2], second)


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (2, 6), (5,)])
def test_a_mask_of_a_wrong_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"attention_mask.*{shape[0]}.*\(2, 5\).*\(2, 11\)"):
        tiny_model()(random_ids(2, 5), attention_mask=torch.ones(shape))


def test_without_padding_nothing_is_moved() -> None:
    arrangement = arrange(None, None, memory_length=3, query_length=2)
    x = torch.randn(2, 2, 4)
    assert arrangement.exists is None
    assert arrangement.segment(x) is x
    assert arrangement.restore_segment(x) is x
    assert arrangement.context(x) is x


def test_padding_comes_before_memory_and_memory_before_tokens() -> None:
    is_token = torch.tensor([[True, False, True]])
    arrangement = arrange(is_token, None, memory_length=2, query_length=3)
    segment = arrangement.segment(torch.tensor([[[10.0], [11.0], [12.0]]]))
    context = arrangement.context(torch.cat([torch.tensor([[[1.0], [2.0]]]), segment], dim=1))
    assert segment.flatten().tolist() == [11, 10, 12]
    assert context.flatten().tolist() == [0, 1, 2, 10, 12]
    assert arrangement.exists.tolist() == [[False, True, True, True, True]]
    assert arrangement.restore_segment(segment).flatten().tolist() == [10, 11, 12]
