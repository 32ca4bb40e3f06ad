"""The one door to attention: states the shapes and picks an implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from transformer_xl.ops import flex, fused, matrix_products, query_blocks, single_query


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    *,
    distance_key: Tensor | None = None,
    content_bias: Tensor | None = None,
    position_bias: Tensor | None = None,
    distance_bias: Tensor | None = None,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
    need_weights: bool = False,
    flexible: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what each query reads from the visible keys, and on request the weights it read with.

    Matrix products serve a single query, for which they read each key once and copy none, and requests for weights. Of
    the rest, blocks of queries serve distances on the CPU; the fused implementation serves all else.

    Args:
        query: [B, H, T, K], the last T of the S positions.
        key: [B, H, S, K].
        value: [B, H, S, K].
        visible: Boolean [1 or B, 1, T, S], True where attention is allowed; no row may be empty
            (`visibility.visible_positions` makes it). None if a single query sees all.
        distance_key: Projected distances r [H, S, K]; the last row is distance 0. One more row in front, [H, 1 + S, K],
            is room that blocks of queries can use. None for absolute positions.
        content_bias: u [H, K].
        position_bias: v [H, K].
        distance_bias: [H, S] (Shaw et al.).
        dropout: Probability of dropping a weight.
        head_mask: [H]; 0 silences a head, 1 keeps it.
        need_weights: Whether to return the weights too.
        flexible: Whether FlexAttention serves several queries without weights; only where `flex.obstacle` has none.

    Returns:
        What was read [B, H, T, K], and the weights [B, H, T, S] after dropout and head mask, or None.

    Source: Dai et al. 2019, section 3.3; `reference.attention` states the formula.
    """
    distances = None if distance_key is None else distance_key[:, -key.shape[2] :]
    rest = (distances, content_bias, position_bias, distance_bias, dropout, head_mask)
    if (
        distances is not None
        and content_bias is not None
        and position_bias is not None
        and visible is None
        and not (need_weights or dropout)
        and head_mask is distance_bias is None
    ):
        return single_query.attention(query, key, value, distances, content_bias, position_bias), None
    if visible is None or need_weights or query.shape[2] == 1:
        return matrix_products.attention(query, key, value, visible, *rest, need_weights=need_weights)
    terms = (query, key, value, visible, *rest)
    if flexible:
        return flex.attention(*terms[:-2], head_mask=head_mask), None
    if distance_key is not None and query.device.type == "cpu" and not torch.compiler.is_compiling():
        rest = (distance_key, content_bias, position_bias, distance_bias, dropout, head_mask)
        return query_blocks.attention(query, key, value, visible, *rest), None
    return fused.attention(*terms), None
