"""Who may see whom: causal, window and padding, as one boolean mask."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_positions(
    query_length: int,
    key_length: int,
    *,
    window: int | None = None,
    visible_keys: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Return the mask of the positions that each query may attend to.

    Queries are the last `query_length` of the `key_length` positions. A query sees no later position, at most `window`
    positions counted back from itself, and of these the ones in `visible_keys`. It always sees itself, so that no row
    of the mask is empty.

    Args:
        query_length: Number of queries T.
        key_length: Number of keys S = M + T.
        window: Number of keys in reach, the query included; None for all (`same_length` of the paper's code is
            `window=mem_len`).
        visible_keys: Keys that exist [B, S], True where there is a token or a row of memory; None for all.
        device: Where to build the mask.

    Returns:
        Boolean mask [1, 1, T, S], or [B, 1, T, S] with `visible_keys`; True where attention is allowed.
    """
    memory_length = key_length - query_length
    query = torch.arange(memory_length, key_length, device=device)[:, None]
    key = torch.arange(key_length, device=device)[None, :]
    distance = query - key
    visible = distance >= 0
    if window is not None:
        visible = visible & (distance < window)
    if visible_keys is None:
        return visible[None, None]
    return ((visible & visible_keys[:, None, :]) | (distance == 0))[:, None]
