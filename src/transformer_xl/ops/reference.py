"""The paper's attention, written as slowly and plainly as it can be: the truth that every fast path is held to."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    distance_key: Tensor | None = None,
    content_bias: Tensor | None = None,
    position_bias: Tensor | None = None,
    distance_bias: Tensor | None = None,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Return what each query reads, pair by pair, as the paper states it (Dai et al. 2019, section 3.3).

    The score of query i for key j, at distance i - j, is

    $$A_{ij} = \underbrace{q_i^\top k_j}_{(a)} + \underbrace{q_i^\top r_{i-j}}_{(b)}
             + \underbrace{u^\top k_j}_{(c)} + \underbrace{v^\top r_{i-j}}_{(d)}$$

    divided by the square root of K; softmax over the visible j weighs the values. Shaw et al. (attn_type 1) replace (d)
    by a learned number for each distance, `distance_bias`; absolute positions (attn_type 2, 3) have (a) alone.

    Args:
        query: [B, H, T, K], the last T of the S positions.
        key: [B, H, S, K].
        value: [B, H, S, K].
        visible: Boolean [1 or B, 1, T, S], True where attention is allowed; no row may be empty.
        distance_key: r [H, S, K]; row d belongs to distance S - 1 - d, the last row to distance 0.
        content_bias: u [H, K].
        position_bias: v [H, K].
        distance_bias: [H, S], rows as those of `distance_key`.
        dropout: Probability of dropping a weight.
        head_mask: [H]; 0 silences a head, 1 keeps it.
        need_weights: Whether to return the weights too.

    Returns:
        What was read [B, H, T, K], and the weights [B, H, T, S] after dropout and head mask, or None.
    """
    batch, num_heads, query_length, head_size = query.shape
    key_length = key.shape[2]
    memory_length = key_length - query_length
    rows = []
    for i in range(query_length):
        scores = []
        for j in range(key_length):
            distance = memory_length + i - j
            content_query = query[:, :, i] if content_bias is None else query[:, :, i] + content_bias
            score = (content_query * key[:, :, j]).sum(-1)
            if distance_key is not None and distance >= 0:
                position_query = query[:, :, i] if position_bias is None else query[:, :, i] + position_bias
                score = score + (position_query * distance_key[:, key_length - 1 - distance]).sum(-1)
            if distance_bias is not None and distance >= 0:
                score = score + distance_bias[:, key_length - 1 - distance]
            scores.append(score / math.sqrt(head_size))
        rows.append(torch.stack(scores, dim=-1))
    scores_of_pairs = torch.stack(rows, dim=2).float().masked_fill(~visible, float("-inf"))
    weights = torch.softmax(scores_of_pairs, dim=-1).to(value.dtype)
    weights = torch.dropout(weights, dropout, train=dropout > 0)
    if head_mask is not None:
        weights = weights * head_mask.view(num_heads, 1, 1)
    read = torch.stack([(weights[:, :, i, :, None] * value).sum(2) for i in range(query_length)], dim=2)
    return read.view(batch, num_heads, query_length, head_size), weights if need_weights else None
