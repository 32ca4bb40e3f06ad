"""Attention by torch's FlexAttention, which looks the terms of distance up while it scores; made for CUDA."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

SMALLEST_HEAD = 16


def obstacle(query: Tensor, dropout: float) -> str | None:
    """Return why FlexAttention cannot serve these queries [B, H, T, K], or None if it can."""
    if dropout > 0:
        return f"it cannot drop weights, and dropatt is {dropout}"
    if query.is_cuda and query.shape[-1] < SMALLEST_HEAD:
        return f"its CUDA kernels need heads at least {SMALLEST_HEAD} wide, and d_head is {query.shape[-1]}"
    if query.device.type in ("cpu", "mps") and torch.is_grad_enabled():
        return f"it has no gradients on the device {query.device.type}"
    return None


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    distance_key: Tensor | None = None,
    content_bias: Tensor | None = None,
    position_bias: Tensor | None = None,
    distance_bias: Tensor | None = None,
    head_mask: Tensor | None = None,
) -> Tensor:
    """Return what each query reads; arguments and result as in `reference.attention`, without dropout of weights.

    A head mask may be applied to what a head has read, since it is one number for all its weights.
    """
    batch_size, _, query_length, head_size = query.shape
    key_length = key.shape[2]
    visible = visible.expand(batch_size, -1, -1, -1)
    # As tensors, because torch compiles a number anew, or wrongly, when it changes with the lengths.
    last_query = torch.full((), query_length - 1, device=query.device)
    last_key = torch.full((), key_length - 1, device=query.device)

    def may_see(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return visible[b, 0, i, j]

    score: Callable[..., Tensor] | None = None
    if distance_key is not None:
        position_query = query if position_bias is None else query + position_bias[:, None]
        by_distance = (position_query / math.sqrt(head_size)) @ distance_key.mT
        if distance_bias is not None:
            by_distance = by_distance + distance_bias[:, None] / math.sqrt(head_size)

        def with_distance(content: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            # The last column is distance 0; a later key is masked, whatever its column.
            return content + by_distance[b, h, i, torch.minimum(last_query - i + j, last_key)]

        score = with_distance

    mask = create_block_mask(may_see, batch_size, None, query_length, key_length, device=str(query.device))
    content_query = query if content_bias is None else query + content_bias[:, None]
    attend = cast(Callable[..., Tensor], _compiled() if query.is_cuda else flex_attention)
    read = attend(content_query, key, value, score_mod=score, block_mask=mask)
    return read if head_mask is None else read * head_mask.view(-1, 1, 1)


@functools.cache
def _compiled() -> Callable[..., Any]:
    """Return FlexAttention as one kernel; uncompiled it builds all scores."""
    return torch.compile(flex_attention)
