"""Attention in two matrix products and a softmax: gives the weights, and trains on the CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer_xl.ops.shift import shifted_distance_scores


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    distance_key: Tensor | None = None,
    content_bias: Tensor | None = None,
    position_bias: Tensor | None = None,
    distance_bias: Tensor | None = None,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what each query reads; arguments and result as in `reference.attention`; without `visible`, all is."""
    scale = 1 / math.sqrt(query.shape[-1])
    content_query = query if content_bias is None else query + content_bias[:, None]
    scores = (content_query * scale) @ key.mT
    if distance_key is not None:
        scores = scores + shifted_distance_scores(query, distance_key, position_bias, distance_bias, scale)
    scores = scores.float()
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    if dropout:
        weights = torch.dropout(weights, dropout, train=True)
    if head_mask is not None:
        weights = weights * head_mask.view(-1, 1, 1)
    return weights @ value, weights if need_weights else None
