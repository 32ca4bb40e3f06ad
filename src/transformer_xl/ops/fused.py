"""Attention by torch's fused `scaled_dot_product_attention`, with the terms of distance as its additive mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer_xl.ops.shift import shifted_distance_scores


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
) -> Tensor:
    """Return what each query reads; arguments and result as in `reference.attention`, but it has no weights to show.

    A head mask may be applied to what a head has read, since it is one number for all its weights.
    """
    mask = visible
    if distance_key is not None:
        scale = 1 / math.sqrt(query.shape[-1])
        distance_scores = shifted_distance_scores(query, distance_key, position_bias, distance_bias, scale)
        mask = distance_scores.masked_fill(~visible, float("-inf"))
    content_query = query if content_bias is None else query + content_bias[:, None]
    read = torch.nn.functional.scaled_dot_product_attention(
        content_query, key, value, attn_mask=mask, dropout_p=dropout
    )
    return read if head_mask is None else read * head_mask.view(-1, 1, 1)
