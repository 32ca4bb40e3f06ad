"""One matrix for looking up rows and for scores, whose two gradients become one without a second matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def shared_matrix(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrix twice: to look rows up with `embedding(..., sparse=True)`, and to compute scores from.

    The few rows that the lookup gives a gradient are added in place to the dense gradient of the scores. Left to
    itself, autograd would write a second dense one, all but zeros, and add the two.

    Args:
        weight: [V, E].

    Returns:
        The matrix for the lookup and the matrix for the scores, [V, E] each. What computes the scores has to give the
        second a gradient of its own making, not one that others hold too.
    """
    apply = cast(Callable[..., tuple[Tensor, Tensor]], _SharedMatrix.apply)
    return apply(weight)


class _SharedMatrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return two views of the matrix."""
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_lookup: Tensor | None, of_scores: Tensor | None) -> Tensor | None:
        """Return the sum of the gradients as a dense matrix."""
        if of_scores is None:
            return None if of_lookup is None else of_lookup.to_dense()
        return of_scores if of_lookup is None else of_scores.add_(of_lookup)
