"""How memory is laid out, begun, grown, reset and reordered; no other file knows.

A memory is a list with one tensor [M, B, D] for each layer: the inputs of that layer at the last M positions, oldest
first, without gradient. With `initial_memory="empty"` a row of zeros means that there is no token: it is never attended
to. With "zeros" such rows are attended to, as transformers 4 does.

Example:
    >>> out = model(ids)
    >>> mems = reset(out.mems, torch.tensor([True, False]))  # the first text has ended, the second goes on
    >>> out = model(next_ids, mems=mems)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Memory = list[Tensor]


def reset(mems: Sequence[Tensor], rows: Tensor) -> Memory:
    """Return the memory with the chosen rows of the batch as at the very beginning, in all layers.

    Args:
        mems: One tensor [M, B, D] for each layer.
        rows: Boolean [B], True for the rows to reset.

    Raises:
        ValueError: `rows` is not one boolean for each row of the batch.
    """
    batch_size = mems[0].shape[1]
    if rows.dtype != torch.bool or rows.shape != (batch_size,):
        raise ValueError(
            f"rows is {rows.dtype} of shape {tuple(rows.shape)}, but the memory has {batch_size} rows: give a boolean "
            f"tensor of shape ({batch_size},)."
        )
    return [layer.masked_fill(rows.to(layer.device)[None, :, None], 0) for layer in mems]


def reorder(mems: Sequence[Tensor], index: Tensor) -> Memory:
    """Return the memory with its rows taken in the order of `index` [B']; beams and resampled batches need it."""
    return [layer.index_select(1, index.to(layer.device)) for layer in mems]


def detach(mems: Sequence[Tensor]) -> Memory:
    """Return the memory cut off from the graph that computed it."""
    return [layer.detach() for layer in mems]


def move(mems: Sequence[Tensor], device: torch.device | str, dtype: torch.dtype | None = None) -> Memory:
    """Return the memory on `device`, and in `dtype` if one is given."""
    return [layer.to(device=device, dtype=dtype) for layer in mems]


def begin(num_layers: int, length: int, batch_size: int, width: int, like: Tensor) -> Memory:
    """Return `length` rows of zeros for each layer [M, B, D], in the dtype and on the device of `like`."""
    return [like.new_zeros(length, batch_size, width) for _ in range(num_layers)]


def rows_with_tokens(past: Tensor) -> Tensor:
    """Return which rows of the deepest layer's memory, [B, M, D], hold a token [B, M]: those that are not all zero.

    The deepest layer is asked because its inputs have been through all the others, so that no real one is zero.
    """
    return (past != 0).any(dim=-1)


def remember(context: Tensor, query_length: int, memory_length: int, extended_length: int) -> Tensor:
    """Return the memory of one layer for the next segment.

    Args:
        context: Memory and segment of the layer [B, S, D].
        query_length: Length T of the segment.
        memory_length: How many rows to keep at most.
        extended_length: How many of the last positions the next segment reads again.

    Returns:
        The last `memory_length` rows that the next segment does not read again, [M', B, D], without gradient.

    Source: the comment on `ext_len` in the authors' PyTorch code (`_update_mems`).
    """
    stop = context.shape[1] - min(extended_length, query_length)
    kept = context[:, max(0, stop - memory_length) : stop]
    return kept.detach().transpose(0, 1).contiguous()
