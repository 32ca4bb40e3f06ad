"""Every fast implementation of attention does what the reference does, forwards and backwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from transformer_xl.ops import flex, fused, matrix_products, query_blocks, reference, single_query
from transformer_xl.ops.relative_attention import relative_attention
from transformer_xl.ops.visibility import visible_positions

BATCH_SIZE, NUM_HEADS, HEAD_SIZE = 2, 3, flex.SMALLEST_HEAD
TRANSFORMER_XL = ("distance_key", "content_bias", "position_bias")
SHAW = ("distance_key", "content_bias", "distance_bias")
ABSOLUTE = ()
ALL_TERMS = ("distance_key", "content_bias", "position_bias", "distance_bias", "head_mask")

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "fused": fused.attention,
    "query_blocks": query_blocks.attention,
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
]
LONG_CASES = [Case(63, 0, ALL_TERMS, "causal"), Case(63, 10, ALL_TERMS, "window"), Case(63, 70, ALL_TERMS, "padding")]


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


def assert_like_the_reference(attention: Callable[..., Tensor], case: Case) -> None:
    ours, expected = value_and_gradients(attention, case), truth(case)
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(
    ("implementation", "case"),
    [
        (implementation, case)
        for implementation in ("fused", "matrix_products", "query_blocks")
        for case in CASES
        if implementation != "query_blocks" or case.terms != ABSOLUTE  # Blocks of queries serve distances only.
    ],
    ids=str,
)
def test_values_and_all_gradients_are_those_of_the_reference(implementation: str, case: Case) -> None:
    assert_like_the_reference(IMPLEMENTATIONS[implementation], case)


@pytest.mark.parametrize("case", LONG_CASES, ids=lambda case: f"{case.query_length}+{case.memory_length}-{case.mask}")
def test_long_segments_give_the_same_in_all_implementations(case: Case) -> None:
    for implementation in ("fused", "matrix_products", "query_blocks"):
        assert_like_the_reference(IMPLEMENTATIONS[implementation], case)


@pytest.mark.parametrize("longest", [1, 2, 5, 100])
@pytest.mark.parametrize("memory_length", [0, 3, 20])
@pytest.mark.parametrize("mask", ["causal", "window", "padding"])
def test_blocks_of_any_length_give_the_same(
    monkeypatch: pytest.MonkeyPatch, longest: int, memory_length: int, mask: str
) -> None:
    monkeypatch.setattr(query_blocks, "LONGEST_BLOCK", longest)
    assert_like_the_reference(query_blocks.attention, Case(7, memory_length, ALL_TERMS, mask))


@pytest.mark.parametrize("heads_together", [1, 2])
@pytest.mark.parametrize("case", LONG_CASES, ids=lambda case: f"{case.query_length}+{case.memory_length}-{case.mask}")
def test_blocks_of_any_number_of_heads_give_the_same(
    monkeypatch: pytest.MonkeyPatch, heads_together: int, case: Case
) -> None:
    most = heads_together * BATCH_SIZE * case.query_length * (case.memory_length + case.query_length)
    monkeypatch.setattr(query_blocks, "MOST_SCORES", most)
    assert_like_the_reference(query_blocks.attention, case)


@pytest.mark.parametrize("implementation", ["fused", "matrix_products", "query_blocks"])
@pytest.mark.parametrize("mask", ["causal", "window", "padding"])
def test_no_number_of_fresh_memory_is_read(monkeypatch: pytest.MonkeyPatch, implementation: str, mask: str) -> None:
    case = Case(7, 20, ALL_TERMS, mask)
    truth(case)
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kw: empty_like(*args, **kw).fill_(float("nan")))
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda *args, **kw: new_empty(*args, **kw).fill_(float("nan")))
    assert_like_the_reference(IMPLEMENTATIONS[implementation], case)


def test_the_gradients_of_blocks_with_dropout_are_those_of_what_was_read() -> None:
    case = Case(7, 3, ALL_TERMS, "padding")
    tensors, visible = arguments(case, torch.float64)

    def read(*values: Tensor) -> Tensor:
        torch.manual_seed(5)
        return query_blocks.attention(visible=visible, dropout=0.3, **dict(zip(tensors, values, strict=True)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_blocks, "LONGEST_BLOCK", 3)
        torch.autograd.gradcheck(read, tuple(tensors.values()))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.query_length}+{case.memory_length}-{case.mask}")
def test_flex_attention_reads_what_the_reference_reads(case: Case) -> None:
    tensors, visible = arguments(case)
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    torch.testing.assert_close(flex.attention(visible=visible, **tensors), truth(case)["read"], rtol=1e-4, atol=2e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo asks for it.
@pytest.mark.parametrize("case", [*CASES, *LONG_CASES], ids=str)
def test_what_flex_attention_scores_has_the_gradients_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    # On the CPU torch has these gradients, but does not offer them, since no kernel of it computes them there.
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    assert_like_the_reference(flex.attention, case)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_flex_attention_compiled_for_the_cpu_reads_what_the_reference_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile(flex.flex_attention)
    monkeypatch.setattr(flex, "flex_attention", compiled)
    for case in LONG_CASES:
        tensors, visible = arguments(case)
        read = flex.attention(visible=visible, **{name: tensor.detach() for name, tensor in tensors.items()})
        torch.testing.assert_close(read, truth(case)["read"], rtol=1e-4, atol=2e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo asks for it.
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("case", LONG_CASES, ids=lambda case: f"{case.query_length}+{case.memory_length}-{case.mask}")
def test_flex_attention_has_the_gradients_of_the_reference(case: Case) -> None:
    def on_the_device(**tensors: Tensor) -> Tensor:
        return flex.attention(**{name: tensor.cuda() for name, tensor in tensors.items()}).cpu()

    assert_like_the_reference(on_the_device, case)


def test_flex_attention_says_what_it_cannot_do() -> None:
    query = torch.zeros(1, 1, 2, flex.SMALLEST_HEAD)
    assert flex.obstacle(query, 0.1) == "it cannot drop weights, and dropatt is 0.1"
    assert flex.obstacle(query, 0.0) == "it has no gradients on the device cpu"
    with torch.no_grad():
        assert flex.obstacle(query, 0.0) is None


@pytest.mark.parametrize("implementation", ["door", "door_with_weights"])
@pytest.mark.parametrize("terms", [TRANSFORMER_XL, SHAW, ABSOLUTE, ALL_TERMS])
def test_the_door_hands_every_term_on(implementation: str, terms: tuple[str, ...]) -> None:
    assert_like_the_reference(IMPLEMENTATIONS[implementation], Case(7, 3, terms, "padding"))


@pytest.mark.parametrize("implementation", ["door", "door_with_weights", "query_blocks"])
@pytest.mark.parametrize("query_length", [1, 7])
def test_room_in_front_of_the_distances_changes_nothing(implementation: str, query_length: int) -> None:
    def with_room(distance_key: Tensor, **terms: Tensor) -> Tensor:
        row = torch.full_like(distance_key[:, :1], 3e4)
        return IMPLEMENTATIONS[implementation](distance_key=torch.cat([row, distance_key], dim=1), **terms)

    assert_like_the_reference(with_room, Case(query_length, 5, ALL_TERMS, "causal" if query_length == 1 else "window"))


@pytest.mark.parametrize("terms", [TRANSFORMER_XL, SHAW, ABSOLUTE])
def test_a_single_query_that_sees_all_needs_no_mask(terms: tuple[str, ...]) -> None:
    tensors, visible = arguments(Case(1, 5, terms))
    assert visible.all()
    expected = relative_attention(visible=visible, **tensors)[0]
    assert torch.equal(relative_attention(visible=None, **tensors)[0], expected)


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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_gradient_under_dropout_is_that_of_the_weights_that_were_kept(implementation: str) -> None:
    tensors, visible = arguments(Case(7, 5, ALL_TERMS, "padding"), torch.float64)
    names, steps = list(tensors), [torch.randn_like(tensor) for tensor in tensors.values()]

    def read(size: float) -> Tensor:
        torch.manual_seed(3)
        moved = {name: tensors[name] + size * step for name, step in zip(names, steps, strict=True)}
        return IMPLEMENTATIONS[implementation](visible=visible, **moved, dropout=0.4).sum()

    gradients = torch.autograd.grad(read(0.0), list(tensors.values()))
    slope = sum((gradient * step).sum() for gradient, step in zip(gradients, steps, strict=True))
    torch.testing.assert_close(slope, (read(1e-3) - read(-1e-3)) / 2e-3, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("memory_length", [0, 5, 40])
def test_a_single_query_that_sees_all_reads_what_the_reference_reads(memory_length: int) -> None:
    case = Case(1, memory_length)
    assert_like_the_reference(lambda visible, **terms: single_query.attention(**terms), case)
    assert_like_the_reference(lambda visible, **terms: relative_attention(**terms, visible=None)[0], case)
    tensors, visible = arguments(case, torch.bfloat16)
    read, expected = single_query.attention(**tensors), reference.attention(**tensors, visible=visible)[0]
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read, expected, rtol=5e-2, atol=5e-2)
