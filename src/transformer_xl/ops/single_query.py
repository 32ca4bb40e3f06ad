"""Attention of one query in each row and head, as generation has it: few and cheap operations, nothing copied."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention(
    query: Tensor, key: Tensor, value: Tensor, distance_key: Tensor, content_bias: Tensor, position_bias: Tensor
) -> Tensor:
    """Return what each query [B, H, 1, K] reads; arguments and result as in `reference.attention`, where all is seen.

    A single query meets every distance once and in order, so that there is nothing to shift.
    """
    batch_size, num_heads, _, head_size = query.shape
    scale = 1 / math.sqrt(head_size)
    query = query.squeeze(2)
    # All rows of the batch meet the same distances: one product for each head.
    scores = torch.bmm((query + position_bias).transpose(0, 1), distance_key.mT).transpose(0, 1)
    scores = torch.baddbmm(
        scores.reshape(batch_size * num_heads, 1, -1),
        (query + content_bias).view(batch_size * num_heads, 1, head_size),
        key.mT.flatten(0, 1),
        beta=scale,
        alpha=scale,
    )
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    return torch.bmm(weights, value.flatten(0, 1)).view(batch_size, num_heads, 1, head_size)
