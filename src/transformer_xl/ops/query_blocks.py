"""Attention in blocks of heads and queries that skip the keys which the mask hides from them; gradients written out.

Written for the CPU: a block's scores stay near the processor, and what backward needs of it is one tensor, its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transformer_xl.ops.dropout import dropout_mask

LONGEST_BLOCK = 128
# Scores of a block if it has more than one head: larger ones fall out of the processor's cache, and the system takes
# memory of their size back at each turn.
MOST_SCORES = 2**20


class Block(NamedTuple):
    """Heads and queries, the keys they may meet, and the rows of distances, one more in front, that lie between."""

    heads: slice
    queries: slice
    keys: slice
    distances: slice
    hidden: Tensor
    edges: tuple[slice, ...]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    distance_key: Tensor,
    content_bias: Tensor | None = None,
    position_bias: Tensor | None = None,
    distance_bias: Tensor | None = None,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
) -> Tensor:
    """Return what each query reads; arguments and result as in `reference.attention`, with terms of distance.

    A head mask may be applied to what a head has read, since it is one number for all its weights. `distance_key` may
    have one more row in front, whose numbers do not matter: then nothing of it has to be copied.
    """
    scale = 1 / math.sqrt(query.shape[-1])
    # Heads go first, because all rows of the batch meet the same distances; under autocast learned terms are float32.
    dtype = query.dtype
    query, key, value = (x.to(dtype).transpose(0, 1) for x in (query, key, value))
    if query.shape[1] > 1:  # A single row is taken as it lies in memory.
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    query = query * scale
    biases = (content_bias, position_bias)
    queries = (query if bias is None else query + (bias * scale).to(dtype)[:, None, None] for bias in biases)
    # One row more in front makes room for the shift, see `shift.shifted_distance_scores`.
    distances = distance_key.to(dtype)
    if distances.shape[1] == key.shape[2]:
        distances = torch.nn.functional.pad(distances, (0, 0, 1, 0))
    numbers = None
    if distance_bias is not None:
        numbers = torch.nn.functional.pad((distance_bias * scale).to(dtype), (1, 0))[:, None]
    blockwise = cast(Callable[..., Tensor], _BlockwiseAttention.apply)
    read = blockwise(*queries, key, value, distances, numbers, visible.transpose(0, 1), dropout).transpose(0, 1)
    return read if head_mask is None else read * head_mask.view(-1, 1, 1)


def _blocks(visible: Tensor, num_heads: int, batch_size: int) -> Iterator[Block]:
    """Cut a mask [1, 1 or B, T, S] into blocks of queries and heads; no query sees a later position."""
    query_length, key_length = visible.shape[2:]
    num_blocks = -(-query_length // LONGEST_BLOCK)
    for i in range(num_blocks):
        start, stop = i * query_length // num_blocks, (i + 1) * query_length // num_blocks
        last = key_length - query_length + stop
        first = int(visible[:, :, start:stop, :last].any(dim=(0, 1, 2)).int().argmax())
        keys = slice(first, last)
        distances = slice(key_length - (last - first), key_length + 1)
        hidden = ~visible[:, :, start:stop, keys]
        edges = _edges(hidden.any(dim=(0, 1, 2)))
        together = max(1, MOST_SCORES // (batch_size * (stop - start) * (last - first)))
        for head in range(0, num_heads, together):
            yield Block(slice(head, head + together), slice(start, stop), keys, distances, hidden, edges)


def _edges(hidden: Tensor) -> tuple[slice, ...]:
    """Return where the keys lie of which some are hidden, boolean [s]: in front and behind, or anywhere."""
    middle = (~hidden).nonzero()
    if len(middle) and len(middle) == middle[-1] - middle[0] + 1:
        return slice(0, int(middle[0])), slice(int(middle[-1]) + 1, None)
    return (slice(None),)


class _BlockwiseAttention(torch.autograd.Function):
    """Attention on tensors that are scaled, biased and have their heads first."""

    @staticmethod
    def forward(
        ctx: Any,
        content_query: Tensor,
        position_query: Tensor,
        key: Tensor,
        value: Tensor,
        distances: Tensor,
        numbers: Tensor | None,
        visible: Tensor,
        dropout: float,
    ) -> Tensor:
        """Return what is read [H, B, T, K].

        Args:
            ctx: Keeps what backward needs.
            content_query: [H, B, T, K].
            position_query: [H, B, T, K].
            key: [H, B, S, K].
            value: [H, B, S, K].
            distances: [H, 1 + S, K].
            numbers: [H, 1, 1 + S] or None.
            visible: Boolean [1, 1 or B, T, S].
            dropout: Probability of dropping a weight.
        """
        read = torch.empty_like(content_query)
        needs_backward = any(ctx.needs_input_grad)
        kept = []
        for block in _blocks(visible, *key.shape[:2]):
            heads, queries, keys = block.heads, block.queries, block.keys
            raw = position_query[heads, :, queries].flatten(1, 2) @ distances[heads, block.distances].mT
            if numbers is not None:
                raw += numbers[heads, :, block.distances]
            met = content_query[heads, :, queries].flatten(0, 1), key[heads, :, keys].flatten(0, 1).mT
            scores = torch.baddbmm(_shifted(raw, block).flatten(0, 1), *met).unflatten(0, (-1, key.shape[1]))
            for edge in block.edges:
                scores[..., edge].masked_fill_(block.hidden[..., edge], float("-inf"))
            # On the CPU the statistics are float32 whatever the scores are.
            weights = torch.softmax(scores, dim=-1)
            mask = dropout_mask(weights, dropout) if dropout else None
            if needs_backward:
                kept += [weights, mask]
            read[heads, :, queries] = _dropped(weights, mask) @ value[heads, :, keys]
        ctx.save_for_backward(content_query, position_query, key, value, distances, visible, read, *kept)
        ctx.has_numbers = numbers is not None
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_read: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all tensors that went in."""
        content_query, position_query, key, value, distances, visible, read, *kept = ctx.saved_tensors
        grad_content_query = torch.empty_like(content_query)
        grad_position_query = torch.empty_like(position_query)
        grad_key, grad_value, grad_distances = map(torch.zeros_like, (key, value, distances))
        grad_numbers = distances.new_zeros(distances.shape[0], 1, distances.shape[1]) if ctx.has_numbers else None
        grad_read = grad_read.contiguous()
        # The sum over all keys of weight times gradient of the weight, which the softmax subtracts.
        expected = (grad_read * read).sum(-1, keepdim=True)
        blocks = _blocks(visible, *key.shape[:2])
        for block, weights, mask in zip(blocks, kept[::2], kept[1::2], strict=True):
            heads, queries, keys = block.heads, block.queries, block.keys
            grad = grad_read[heads, :, queries]
            grad_value[heads, :, keys] += _dropped(weights, mask).mT @ grad
            grad_weights = _dropped(grad @ value[heads, :, keys].mT, mask)
            # The gradient is written where the shift of its rows is a view, so that no copy is needed to undo it.
            num_heads, batch_size, query_length, key_length = weights.shape
            raw = weights.new_zeros(num_heads, batch_size * query_length, 1 + key_length)
            grad_scores = _shifted(raw, block)
            torch.mul(grad_weights.sub_(expected[heads, :, queries]), weights, out=grad_scores)
            grad_content_query[heads, :, queries] = grad_scores @ key[heads, :, keys]
            grad_key[heads, :, keys] += grad_scores.mT @ content_query[heads, :, queries]
            grad_position_query[heads, :, queries] = (raw @ distances[heads, block.distances]).unflatten(
                1, (batch_size, query_length)
            )
            grad_distances[heads, block.distances] += raw.mT @ position_query[heads, :, queries].flatten(1, 2)
            if grad_numbers is not None:
                grad_numbers[heads, :, block.distances] += raw.sum(1, keepdim=True)
        return (
            *(grad_content_query, grad_position_query, grad_key, grad_value, grad_distances, grad_numbers),
            *(None, None),
        )


def _shifted(raw: Tensor, block: Block) -> Tensor:
    """View scores of distances [H, B * t, 1 + s] as those of keys [H, B, t, s]; see `shift.shifted_distance_scores`."""
    query_length, key_length = block.hidden.shape[2:]
    by_row = raw.view(raw.shape[0], -1, query_length * (1 + key_length))
    shifted: Tensor = by_row[..., query_length:].unflatten(2, (query_length, key_length))
    return shifted


def _dropped(weights: Tensor, mask: Tensor | None) -> Tensor:
    return weights if mask is None else weights * mask
