"""Every fast implementation of attention does what the reference does, forwards and backwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from transformer_xl.ops import fused, matrix_products, query_blocks, reference
from transformer_xl.ops.relative_attention import relative_attention
from transformer_xl.ops.visibility import visible_positions

BATCH_SIZE, NUM_HEADS, HEAD_SIZE = 2, 3, 4
TRANSFORMER_XL = ("distance_key", "content_bias", "position_bias")
SHAW = ("distance_key", "content_bias", "distance_bias")
ABSOLUTE = ()
ALL_TERMS = ("distance_key", "content_bias", "position_bias", "distance_bias", "head_mask")

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "fused": fused.attention,
    "matrix_products": lambda *args, **terms: matrix_products.attention(*args, **terms)[0],
    "door": lambda *args, **terms: relative_attention(*args, **terms)[0],
    "door_with_weights": lambda *args, **terms: relative_attention(*args, **terms, need_weights=True)[0],
}


class Case(NamedTuple):
    """Lengths, terms of the score and mask of one comparison."""

    query_length: int
    memory_length: int
    terms: tuple[str, ...] = TRANSFORMER_XL
    mask: str = "causal"


CASES = [
    *(Case(1, memory_length, terms) for memory_length in (0, 5) for terms in (TRANSFORMER_XL, SHAW, ABSOLUTE)),
    *(
        Case(7, memory_length, terms, mask)
        for memory_length in (0, 3, 20)
        for terms in (TRANSFORMER_XL, SHAW, ABSOLUTE, ALL_TERMS)
        for mask in ("causal", "window", "padding")
    ),
    Case(63, 0, ALL_TERMS, "causal"),
    Case(63, 10, ALL_TERMS, "window"),
    Case(63, 90, ALL_TERMS, "padding"),
]


def arguments(case: Case, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], Tensor]:
    """Random tensors by name, the same at each call, and the mask."""
    key_length = case.memory_length + case.query_length
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "query": (BATCH_SIZE, NUM_HEADS, case.query_length, HEAD_SIZE),
        "key": (BATCH_SIZE, NUM_HEADS, key_length, HEAD_SIZE),
        "value": (BATCH_SIZE, NUM_HEADS, key_length, HEAD_SIZE),
        "distance_key": (NUM_HEADS, key_length, HEAD_SIZE),
        "content_bias": (NUM_HEADS, HEAD_SIZE),
        "position_bias": (NUM_HEADS, HEAD_SIZE),
        "distance_bias": (NUM_HEADS, key_length),
        "head_mask": (NUM_HEADS,),
    }
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for name, shape in shapes.items()
        if name in ("query", "key", "value", *case.terms)
    }
    exists = torch.rand(BATCH_SIZE, key_length, generator=generator) < 0.7
    visible = visible_positions(
        case.query_length,
        key_length,
        window=5 if case.mask == "window" else None,
        visible_keys=exists if case.mask == "padding" else None,
    )
    return tensors, visible


def value_and_gradients(attention: Callable[..., Tensor], case: Case) -> dict[str, Tensor]:
    """What is read, and the gradient of every tensor that went in."""
    tensors, visible = arguments(case)
    read = attention(visible=visible, **tensors)
    noise = torch.randn(read.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((read * noise).sum(), list(tensors.values()))
    return {"read": read.detach(), **dict(zip(tensors, gradients, strict=True))}


@functools.cache
def truth(case: Case) -> dict[str, Tensor]:
    return value_and_gradients(lambda **terms: reference.attention(**terms)[0], case)


@pytest.mark.parametrize("implementation", ["fused", "matrix_products"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.query_length}+{case.memory_length}-{case.mask}")
def test_values_and_all_gradients_are_those_of_the_reference(case: Case, implementation: str) -> None:
    ours, expected = value_and_gradients(IMPLEMENTATIONS[implementation], case), truth(case)
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("implementation", ["door", "door_with_weights"])
@pytest.mark.parametrize("terms", [TRANSFORMER_XL, SHAW, ABSOLUTE, ALL_TERMS])
def test_the_door_hands_every_term_on(implementation: str, terms: tuple[str, ...]) -> None:
    case = Case(7, 3, terms, "padding")
    ours = value_and_gradients(IMPLEMENTATIONS[implementation], case)
    for name, tensor in truth(case).items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("attention", [matrix_products.attention, relative_attention])
@pytest.mark.parametrize("mask", ["causal", "window", "padding"])
def test_the_weights_are_those_of_the_reference(attention: Callable[..., Any], mask: str) -> None:
    tensors, visible = arguments(Case(7, 5, ALL_TERMS, mask))
    ours = attention(visible=visible, **tensors, need_weights=True)[1]
    expected = reference.attention(visible=visible, **tensors, need_weights=True)[1]
    torch.testing.assert_close(ours, expected)


def test_weights_are_returned_only_on_request() -> None:
    tensors, visible = arguments(Case(3, 2))
    for attention in (matrix_products.attention, relative_attention, reference.attention):
        assert attention(visible=visible, **tensors)[1] is None


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mask", ["causal", "window", "padding"])
def test_nothing_that_is_masked_can_be_felt(implementation: str, mask: str) -> None:
    tensors, visible = arguments(Case(1, 12, TRANSFORMER_XL, mask))
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    hidden = ~visible.expand(BATCH_SIZE, 1, 1, -1)[:, 0, 0]
    if mask == "causal":
        hidden = torch.zeros_like(hidden)
    assert hidden.any() or mask == "causal"
    changed = dict(tensors)
    for name in ("key", "value"):
        changed[name] = torch.where(hidden[:, None, :, None], torch.tensor(3e4), tensors[name])
    attention = IMPLEMENTATIONS[implementation]
    assert torch.equal(attention(visible=visible, **changed), attention(visible=visible, **tensors))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_later_token_cannot_be_felt(implementation: str) -> None:
    tensors, visible = arguments(Case(7, 3))
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in ("key", "value"):
        changed[name][:, :, 3 + 4 :] = 3e4
    changed["query"][:, :, 4:] = 3e4
    attention = IMPLEMENTATIONS[implementation]
    before = attention(visible=visible, **tensors)[:, :, :4]
    assert torch.equal(attention(visible=visible, **changed)[:, :, :4], before)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_up_to_its_rounding(implementation: str, dtype: torch.dtype) -> None:
    case = Case(7, 20, ALL_TERMS, "padding")
    tensors, visible = arguments(case, dtype)
    read = IMPLEMENTATIONS[implementation](visible=visible, **tensors)
    assert read.dtype == dtype
    torch.testing.assert_close(read.float(), truth(case)["read"], rtol=0.05, atol=0.08)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_leaves_what_is_read_as_it_is_on_average(implementation: str) -> None:
    tensors, visible = arguments(Case(1, 7))
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    for name in ("query", "key", "value"):
        tensors[name] = tensors[name][:1].expand(20_000, -1, -1, -1)
    attention = IMPLEMENTATIONS[implementation]
    with_dropout = attention(visible=visible, **tensors, dropout=0.5)
    without = attention(visible=visible, **tensors)
    assert not torch.equal(with_dropout, without)
    torch.testing.assert_close(with_dropout.mean(0), without.mean(0), rtol=0, atol=0.05)
