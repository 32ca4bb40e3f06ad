"""The loss of a softmax over many columns, in bounded memory and for the selected rows only.

A softmax over a whole vocabulary for every token of a batch is by far the largest array of a model. Here the rows that
count are moved to the front and go through the softmax in blocks, as many as there are: shapes stay fixed, so that XLA
compiles it, no array is larger than a block, and a rare band costs what its tokens cost. The backward pass computes the
blocks anew.
"""

from __future__ import annotations

from typing import Any

from keras import ops

LARGEST_BLOCK = 2**22
"""Number of scores that are held at a time."""

ROWS_OF_A_RARE_BAND = 64
"""Rows of a block where few rows are selected: a block is computed whole."""


def losses_of_most(hidden: Any, weight: Any, bias: Any, columns: Any, selected: Any) -> Any:
    """Return what `selected_losses` returns, faster where most rows are selected."""
    num_rows, num_columns = hidden.shape[0], weight.shape[0]
    most_rows = max(1, LARGEST_BLOCK // num_columns)
    if not isinstance(num_rows, int):
        return _losses_in_blocks(hidden, weight, bias, columns, selected, most_rows)
    num_blocks = -(-num_rows // most_rows)
    if num_blocks > 1:
        return _losses_in_blocks(hidden, weight, bias, columns, selected, -(-num_rows // num_blocks))
    scores = ops.cast(ops.matmul(hidden, ops.transpose(weight)) + bias, "float32")
    right_column = columns[:, None] == ops.arange(num_columns, dtype=columns.dtype)
    picked = ops.sum(ops.where(right_column, scores, 0.0), axis=-1)
    return ops.where(selected, ops.logsumexp(scores, axis=-1) - picked, 0.0)


def selected_losses(hidden: Any, weight: Any, bias: Any, columns: Any, selected: Any) -> Any:
    """Return the cross-entropy of each selected row, and 0 for the others, float32 [N].

    Args:
        hidden: [N, E]; like the two below a tensor, no variable of Keras.
        weight: [C, E].
        bias: [C].
        columns: Right column of each selected row, whole numbers [N].
        selected: Boolean [N].
    """
    block = min(max(1, LARGEST_BLOCK // weight.shape[0]), ROWS_OF_A_RARE_BAND)
    if isinstance(hidden.shape[0], int):
        block = max(1, min(block, hidden.shape[0]))
    return _losses_in_blocks(hidden, weight, bias, columns, selected, block)


def _losses_in_blocks(hidden: Any, weight: Any, bias: Any, columns: Any, selected: Any, block: int) -> Any:
    """Return the losses of the selected rows, which go through the softmax in blocks of so many rows."""
    num_columns = weight.shape[0]
    order = ops.argsort(ops.cast(ops.logical_not(selected), "int32"), axis=0)
    count = ops.sum(ops.cast(selected, "int32"))
    # One block of padding, so that the last block never reaches past the end.
    columns = ops.pad(ops.take(ops.clip(columns, 0, num_columns - 1), order), [[0, block]])
    rows = ops.pad(ops.take(hidden, order, axis=0), [[0, block], [0, 0]])
    losses = _first_losses(rows, weight, bias, columns, count, block)[:-block]
    return ops.take(losses, ops.argsort(order, axis=0))


def _first_losses(hidden: Any, weight: Any, bias: Any, columns: Any, count: Any, block: int) -> Any:
    """Return the cross-entropy of the first `count` rows, in blocks; 0 for the others."""
    num_rows, width = ops.shape(hidden)
    num_columns = weight.shape[0]
    # Counted in blocks: XLA of JAX 0.10 runs a loop not at all whose counter takes steps larger than its bound.
    num_blocks = (count + block - 1) // block

    def unfinished(i: Any, *_: Any) -> Any:
        return i < num_blocks

    def logits(hidden: Any, weight: Any, bias: Any, start: Any) -> tuple[Any, Any]:
        rows = ops.slice(hidden, (start, 0), (block, width))
        return rows, ops.cast(ops.matmul(rows, ops.transpose(weight)) + bias, "float32")

    def right_column(start: Any) -> Any:
        return ops.slice(columns, (start,), (block,))[:, None] == ops.arange(num_columns, dtype=columns.dtype)

    def counted(start: Any) -> Any:
        return start + ops.arange(block, dtype="int32") < count

    @ops.custom_gradient
    def losses(hidden: Any, weight: Any, bias: Any) -> Any:
        def forward(i: Any, losses: Any, normalisers: Any) -> tuple[Any, Any, Any]:
            start = i * block
            _, scores = logits(hidden, weight, bias, start)
            normaliser = ops.logsumexp(scores, axis=-1)
            picked = ops.sum(ops.where(right_column(start), scores, 0.0), axis=-1)
            block_losses = ops.where(counted(start), normaliser - picked, 0.0)
            return (
                i + 1,
                ops.slice_update(losses, (start,), block_losses),
                ops.slice_update(normalisers, (start,), normaliser),
            )

        nothing = ops.zeros((num_rows,), "float32")
        _, result, normalisers = ops.while_loop(unfinished, forward, (ops.zeros((), "int32"), nothing, nothing))

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            upstream = arguments[0] if upstream is None else upstream

            def backward(i: Any, by_hidden: Any, by_weight: Any, by_bias: Any) -> tuple[Any, Any, Any, Any]:
                start = i * block
                rows, scores = logits(hidden, weight, bias, start)
                normaliser = ops.slice(normalisers, (start,), (block,))[:, None]
                factor = ops.where(counted(start), ops.slice(upstream, (start,), (block,)), 0.0)[:, None]
                by_scores = factor * (ops.exp(scores - normaliser) - ops.cast(right_column(start), "float32"))
                by_bias = by_bias + ops.sum(by_scores, axis=0)
                by_scores = ops.cast(by_scores, rows.dtype)
                by_rows = ops.matmul(by_scores, weight)
                by_weight = by_weight + ops.cast(ops.matmul(ops.transpose(by_scores), rows), "float32")
                return i + 1, ops.slice_update(by_hidden, (start, 0), by_rows), by_weight, by_bias

            zeros = (
                ops.zeros((), "int32"),
                ops.zeros((num_rows, width), hidden.dtype),
                ops.zeros((num_columns, width), "float32"),
                ops.zeros((num_columns,), "float32"),
            )
            _, by_hidden, by_weight, by_bias = ops.while_loop(unfinished, backward, zeros)
            return by_hidden, ops.cast(by_weight, weight.dtype), ops.cast(by_bias, bias.dtype)

        return result, gradient

    return losses(hidden, weight, bias)
