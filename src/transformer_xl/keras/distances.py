"""Sinusoids of clamped distances, and which positions may see which."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def inverse_frequencies(width: int) -> Any:
    """Return the angle that each sinusoid gains per step of distance, float32 [D / 2], as a NumPy array."""
    return np.float32(1) / np.float32(10000) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))


def sinusoids(length: Any, width: int, clamp_length: int = -1) -> Any:
    """Return the encodings of the distances `length - 1` down to 0, float32 [S, D]; the last row is distance 0.

    Args:
        length: Number of distances S.
        width: Even width D; the first half are sines, the second cosines.
        clamp_length: Larger distances are encoded as this one; no limit if it is not positive.
    """
    distance = ops.cast(ops.flip(ops.arange(length)), "float32")
    if clamp_length > 0:
        distance = ops.minimum(distance, float(clamp_length))
    angle = ops.outer(distance, ops.convert_to_tensor(inverse_frequencies(width)))
    return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)


def visible_positions(query_length: Any, key_length: Any, window: int | None = None, exists: Any = None) -> Any:
    """Return which of the S keys each of the last T positions may attend to, boolean [1 or B, 1, T, S].

    A query sees no later position, at most `window` positions counted back from itself, and of these the ones that
    exist. It always sees itself.

    Args:
        query_length: T.
        key_length: S.
        window: Number of keys in reach, the query included; None for all.
        exists: Which keys there are, boolean [B, S]; None for all.
    """
    query = ops.arange(query_length)[:, None] + (key_length - query_length)
    distance = query - ops.arange(key_length)[None, :]
    visible = distance >= 0
    if window is not None:
        visible = ops.logical_and(visible, distance < window)
    if exists is None:
        return visible[None, None]
    visible = ops.logical_and(visible[None], exists[:, None, :])
    return ops.logical_or(visible, (distance == 0)[None])[:, None]
