"""A matrix that is looked up and multiplied with gets the sum of both gradients, in one dense matrix."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import embedding, linear

from transformer_xl.ops.shared_matrix import shared_matrix

IDS = torch.tensor([[3, 0, 3], [6, 3, 1]])


@pytest.mark.parametrize("uses", [{"lookup", "scores"}, {"lookup"}, {"scores"}])
def test_the_gradient_is_the_sum_of_what_both_uses_give(uses: set[str]) -> None:
    weight = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 7).double()
    lookup, matrix = shared_matrix(weight)
    pairs = {True: (embedding(IDS, lookup, sparse=True), matrix), False: (embedding(IDS, weight), weight)}
    gradients = []
    for rows, scoring in pairs.values():
        losses = {"lookup": rows * noise[0], "scores": linear(noise[0], scoring).sigmoid() * noise[1]}
        (gradient,) = torch.autograd.grad(sum(losses[use].sum() for use in uses), weight)
        gradients.append(gradient)
    assert gradients[0].layout is torch.strided
    torch.testing.assert_close(*gradients)


def test_no_second_matrix_is_written() -> None:
    weight = torch.randn(7, 4, requires_grad=True)
    lookup, matrix = shared_matrix(weight)
    places: list[int] = []
    matrix.register_hook(lambda gradient: places.append(gradient.data_ptr()))
    linear(embedding(IDS, lookup, sparse=True), matrix).sum().backward()
    assert places == [weight.grad.data_ptr()]
