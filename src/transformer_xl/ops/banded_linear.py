"""A matrix of scores cut into bands, each for rows of its own, whose gradient is written once into one matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def banded_linear(inputs: Sequence[Tensor], weight: Tensor, bias: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the scores of each band for its rows.

    Cutting the matrix with `split` and joining the gradients of the pieces would copy a vocabulary's matrix once more.

    Args:
        inputs: [N, E] for each band, with any number of rows N.
        weight: [V, E].
        bias: [V].
        sizes: How many of the V rows belong to each band.

    Returns:
        [N, size] for each band.
    """
    apply = cast(Callable[..., tuple[Tensor, ...]], _BandedLinear.apply)
    return apply(weight, bias, sizes, *inputs)


class _BandedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, sizes: Sequence[int], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of each band."""
        ctx.save_for_backward(weight, bias, *inputs)
        ctx.sizes = sizes
        bands = zip(inputs, weight.split(sizes), bias.split(sizes), strict=True)
        return tuple(torch.nn.functional.linear(*band) for band in bands)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all tensors that went in."""
        weight, bias, *inputs = ctx.saved_tensors
        needs_weight, needs_bias, _, *needs_inputs = ctx.needs_input_grad
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.empty_like(bias) if needs_bias else None
        grad_inputs = []
        pieces = zip(grads, inputs, needs_inputs, weight.split(ctx.sizes), strict=True)
        start = 0
        for grad, rows, needed, band in pieces:
            stop = start + band.shape[0]
            if grad_weight is not None:
                torch.mm(grad.T, rows, out=grad_weight[start:stop])
            if grad_bias is not None:
                torch.sum(grad, dim=0, out=grad_bias[start:stop])
            grad_inputs.append(grad @ band if needed else None)
            start = stop
        return grad_weight, grad_bias, None, *grad_inputs
