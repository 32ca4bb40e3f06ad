"""Padding moved before everything else in its row, so that a padded row gives what the row alone gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arrangement:
    """The order in which each row of a batch holds its padding, its memory and its tokens: [padding, memory, tokens].

    Distances between a row's tokens and its memory then do not depend on the padding, on whichever side it stood.

    Attributes:
        segment_order: Positions of the segment with padding first [B, T]; None without padding.
        context_order: Positions of memory and (reordered) segment in the final order [B, S]; None without padding.
        num_padding: Number of padding positions in each row [B]; None without padding.
        exists: Which of the S positions may be attended to, in the final order [B, S]; None for all.
    """

    segment_order: Tensor | None = None
    context_order: Tensor | None = None
    num_padding: Tensor | None = None
    exists: Tensor | None = None

    def segment(self, x: Tensor) -> Tensor:
        """Bring a segment [B, T, ...] into order."""
        return x if self.segment_order is None else _take(x, self.segment_order)

    def restore_segment(self, x: Tensor) -> Tensor:
        """Bring a segment [B, T, ...] back to where its positions stood."""
        return x if self.segment_order is None else _take(x, self.segment_order.argsort(dim=1))

    def context(self, x: Tensor) -> Tensor:
        """Bring memory and reordered segment [B, S, D] into order, with zeros where there is nothing."""
        if self.context_order is not None:
            x = _take(x, self.context_order)
        return x if self.exists is None else x * self.exists[:, :, None]

    def restore_weights(self, weights: Tensor) -> Tensor:
        """Bring attention weights [B, H, T, S] back to where queries and keys stood."""
        if self.segment_order is None or self.context_order is None:
            return weights
        query_length, key_length = weights.shape[2:]
        memory_length = key_length - query_length
        memory_positions = torch.arange(memory_length, device=weights.device).expand(weights.shape[0], -1)
        original = torch.cat([memory_positions, self.segment_order + memory_length], dim=1).gather(
            1, self.context_order
        )
        by_query = _take(weights.transpose(1, 2), self.segment_order.argsort(dim=1))
        return _take(by_query.permute(0, 3, 2, 1), original.argsort(dim=1)).permute(0, 2, 3, 1)

    def memory_rows(self, table: Tensor, memory_length: int) -> Tensor:
        """Return the rows of a table of positions [S, D] that belong to the memory, [1 or B, M, D]."""
        if self.num_padding is None:
            return table[None, :memory_length]
        rows = self.num_padding[:, None] + torch.arange(memory_length, device=table.device)
        return table[rows]


def arrange(
    is_token: Tensor | None, memory_exists: Tensor | None, memory_length: int, query_length: int
) -> Arrangement:
    """Return the arrangement of a batch.

    Args:
        is_token: Which positions of the segment are not padding, boolean [B, T]; None for all.
        memory_exists: Which rows of the memory may be attended to, boolean [B, M]; None for all.
        memory_length: M.
        query_length: T.
    """
    known = is_token if memory_exists is None else memory_exists
    if known is None:
        return Arrangement()
    if memory_exists is None:
        memory_exists = known.new_ones(known.shape[0], memory_length)
    if is_token is None:
        tokens = known.new_ones(known.shape[0], query_length)
        return Arrangement(exists=torch.cat([memory_exists, tokens], dim=1))
    segment_order = is_token.byte().argsort(dim=1, stable=True)
    is_token = is_token.gather(1, segment_order)
    rank = torch.cat([torch.ones_like(memory_exists, dtype=torch.uint8), 2 * is_token.byte()], dim=1)
    context_order = rank.argsort(dim=1, stable=True)
    exists = torch.cat([memory_exists, is_token], dim=1).gather(1, context_order)
    return Arrangement(segment_order, context_order, (~is_token).sum(dim=1), exists)


def _take(x: Tensor, order: Tensor) -> Tensor:
    index = order.view(*order.shape, *[1] * (x.dim() - 2)).expand(*order.shape, *x.shape[2:])
    return x.gather(1, index)
