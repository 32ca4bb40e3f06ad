"""How far a run is, and the learning rate that belongs there."""

from __future__ import annotations

import math


def progress(step: int, seconds: float, steps: int, minutes: float | None) -> float:
    """How far a run is, from 0 to 1: its share of `minutes` where they are given, of `steps` otherwise."""
    share = step / steps if minutes is None else seconds / (60 * minutes)
    return min(share, 1.0)


def cosine_with_warm_up(progress: float, warm_up: float, final: float) -> float:
    """The factor of the learning rate: a line from 0 to 1 while `progress` is below `warm_up`, then half a cosine wave
    down to `final` where `progress` is 1 (Loshchilov & Hutter 2017).

    >>> [round(cosine_with_warm_up(p, warm_up=0.2, final=0.1), 2) for p in (0, 0.1, 0.2, 0.6, 1)]
    [0.0, 0.5, 1.0, 0.55, 0.1]
    """
    if progress < warm_up:
        return progress / warm_up
    descent = (progress - warm_up) / (1 - warm_up)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * descent))
