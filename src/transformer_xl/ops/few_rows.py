"""Products of a few rows with a large matrix, as generation has them: what counts is how fast the matrix is read."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ROWS = 16
LARGE = 2**14


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `torch.nn.functional.linear` does: [..., D] by [F, D] and [F] gives [..., F].

    On the CPU in float32, where no gradient is wanted, few rows take another way through the same library: its product
    of one row with a matrix leaves most of the memory's speed unused, and its product of many rows is tiled for many.
    """
    num_rows = x.numel() // x.shape[-1]
    is_few = weight.numel() >= LARGE and 0 < num_rows <= MOST_ROWS
    if not is_few or not _is_plain(x, weight) or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.nn.functional.linear(x, weight, bias)
    if num_rows > 1:
        product = (weight @ x.reshape(num_rows, -1).T).T.contiguous()
    elif weight.shape[0] % 2 == 0:
        halves = weight.view(2, weight.shape[0] // 2, -1)
        # The vector as a transposed row, for either half: laid out as a column it takes the slow way again.
        width = x.shape[-1]
        product = halves.bmm(x.contiguous().as_strided((2, width, 1), (0, 1, width)))
    else:
        return torch.nn.functional.linear(x, weight, bias)
    product = product.view(*x.shape[:-1], -1)
    return product if bias is None else product.add_(bias)


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether both are float32 on the CPU."""
    return x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
