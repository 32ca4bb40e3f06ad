"""Padding moved before everything else in its row, so that a padded row gives what the row alone gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops


@dataclass(frozen=True)
class Arrangement:
    """The order in which each row of a batch holds its padding, its memory and its tokens: [padding, memory, tokens].

    Attributes:
        segment_order: Positions of the segment with padding first [B, T]; None without padding.
        context_order: Positions of memory and (reordered) segment in the final order [B, S]; None without padding.
        exists: Which of the S positions may be attended to, in the final order [B, S]; None for all.
    """

    segment_order: Any = None
    context_order: Any = None
    exists: Any = None

    def segment(self, x: Any) -> Any:
        """Bring a segment [B, T, D] into order."""
        return x if self.segment_order is None else taken(x, self.segment_order)

    def restore_segment(self, x: Any) -> Any:
        """Bring a segment [B, T, D] back to where its positions stood."""
        return x if self.segment_order is None else taken(x, ops.argsort(self.segment_order, axis=1))

    def context(self, x: Any) -> Any:
        """Bring memory and reordered segment [B, S, D] into order, with zeros where there is nothing."""
        if self.context_order is not None:
            x = taken(x, self.context_order)
        return x if self.exists is None else x * ops.cast(self.exists, x.dtype)[:, :, None]

    def restore_weights(self, weights: Any) -> Any:
        """Bring attention weights [B, H, T, S] back to where queries and keys stood."""
        if self.segment_order is None:
            return weights
        memory_length = ops.shape(weights)[3] - ops.shape(weights)[2]
        memory_positions = ops.arange(memory_length)[None, :] + ops.zeros_like(self.segment_order[:, :1])
        original = ops.concatenate([memory_positions, self.segment_order + memory_length], axis=1)
        original = ops.take_along_axis(original, self.context_order, axis=1)
        rows, columns = ops.argsort(self.segment_order, axis=1), ops.argsort(original, axis=1)
        weights = ops.take_along_axis(weights, rows[:, None, :, None], axis=2)
        return ops.take_along_axis(weights, columns[:, None, None, :], axis=3)


def arrange(is_token: Any, memory_exists: Any, memory_length: Any, query_length: Any) -> Arrangement:
    """Return the arrangement of a batch.

    Args:
        is_token: Which positions of the segment are not padding, boolean [B, T]; None for all.
        memory_exists: Which rows of the memory may be attended to, boolean [B, M]; None for all.
        memory_length: M.
        query_length: T.
    """
    if is_token is None and memory_exists is None:
        return Arrangement()
    batch_size = ops.shape(memory_exists if is_token is None else is_token)[0]
    if memory_exists is None:
        memory_exists = ops.ones((batch_size, memory_length), "bool")
    if is_token is None:
        tokens = ops.ones((batch_size, query_length), "bool")
        return Arrangement(exists=ops.concatenate([memory_exists, tokens], axis=1))
    is_token = ops.cast(is_token, "int32")
    segment_order = ordered_by(is_token)
    is_token = ops.take_along_axis(is_token, segment_order, axis=1)
    memory_rank = ops.ones((batch_size, memory_length), "int32")
    context_order = ordered_by(ops.concatenate([memory_rank, 2 * is_token], axis=1))
    exists = ops.concatenate([memory_exists, ops.cast(is_token, "bool")], axis=1)
    return Arrangement(segment_order, context_order, ops.take_along_axis(exists, context_order, axis=1))


def ordered_by(rank: Any) -> Any:
    """Return the positions of [B, N] whole numbers in rising order, equal ones as they stand."""
    length = ops.shape(rank)[1]
    return ops.cast(ops.argsort(rank * length + ops.arange(length, dtype="int32"), axis=1), "int32")


def last_tokens(is_token: Any) -> Any:
    """Return the position of the last token of each row of [B, T], [B]; the last position of a row without tokens."""
    length = ops.shape(is_token)[1]
    last = ops.max(ops.where(is_token, ops.arange(length, dtype="int32"), -1), axis=1)
    return ops.where(last >= 0, last, length - 1)


def taken(x: Any, order: Any) -> Any:
    """Return the positions of [B, N, D] in another order."""
    return ops.take_along_axis(x, order[:, :, None], axis=1)
