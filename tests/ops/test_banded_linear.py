"""Bands of one matrix give what its pieces give, and their gradient comes as one matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transformer_xl.ops.banded_linear import banded_linear

SIZES = [5, 3, 7]


def tensors(rows: tuple[int, ...] = (6, 2, 3)) -> tuple[list[Tensor], Tensor, Tensor]:
    inputs = [torch.randn(n, 4, dtype=torch.float64).requires_grad_() for n in rows]
    return inputs, torch.randn(15, 4, dtype=torch.float64).requires_grad_(), torch.randn(15).double().requires_grad_()


def in_pieces(inputs: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
    bands = zip(inputs, weight.split(SIZES), bias.split(SIZES), strict=True)
    return [torch.nn.functional.linear(*band) for band in bands]


@pytest.mark.parametrize("rows", [(6, 2, 3), (6, 0, 3), (1, 0, 0)])
def test_scores_and_all_gradients_are_those_of_the_pieces(rows: tuple[int, ...]) -> None:
    inputs, weight, bias = tensors(rows)
    ours, expected = banded_linear(inputs, weight, bias, SIZES), in_pieces(inputs, weight, bias)
    noise = [torch.randn_like(scores) for scores in expected]
    everything = [*inputs, weight, bias]
    gradients = [
        torch.autograd.grad(sum((x * n).sum() for x, n in zip(scores, noise, strict=True)), everything)
        for scores in (ours, expected)
    ]
    for one, other in zip((*ours, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_frozen_gets_no_gradient() -> None:
    inputs, weight, bias = tensors()
    weight.requires_grad_(False)
    sum(scores.sum() for scores in banded_linear(inputs, weight, bias, SIZES)).backward()
    assert weight.grad is None
    assert bias.grad is not None
    assert all(rows.grad is not None for rows in inputs)


def test_bands_that_nothing_is_made_of_still_get_a_gradient_of_zeros() -> None:
    inputs, weight, bias = tensors()
    banded_linear(inputs, weight, bias, SIZES)[1].sum().backward()
    assert not weight.grad[:5].any()
    assert weight.grad[5:8].all()
    assert not weight.grad[8:].any()
