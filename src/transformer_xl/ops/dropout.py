"""Dropout whose masks cost little on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 2**16


def dropout(x: Tensor, probability: float) -> Tensor:
    """Return `x` with each number dropped with this probability, and the others scaled so that the mean stays.

    Elsewhere than on the CPU it is torch's own.
    """
    if probability == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.nn.functional.dropout(x, probability)
    return x * dropout_mask(x, probability)


def locked_dropout(x: Tensor, probability: float) -> Tensor:
    """Return `x` [..., T, D] with the same of its D numbers dropped at all T positions (Gal & Ghahramani 2016)."""
    if probability == 0:
        return x
    return x * dropout(torch.ones_like(x[..., :1, :]), probability)


def dropout_mask(like: Tensor, probability: float) -> Tensor:
    """Return 0 where a number is dropped and 1 / (1 - probability) elsewhere, in the shape and dtype of `like`.

    The probability is rounded to a multiple of 2**-16: one drawn int64 decides for four numbers, which takes a tenth of
    the time of `bernoulli_`.
    """
    dropped = round(probability * STEPS)
    if dropped == STEPS:
        return torch.zeros_like(like)
    lots = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    mask = lots.view(torch.int16)[: like.numel()].view(like.shape) >= dropped - STEPS // 2
    return mask.to(like.dtype).mul_(STEPS / (STEPS - dropped))
