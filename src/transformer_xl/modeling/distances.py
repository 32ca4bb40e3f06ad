"""Sinusoids of clamped distances, and the learned tables of the other attention types cut to length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def sinusoids(length: int, width: int, clamp_length: int = -1, device: torch.device | None = None) -> Tensor:
    """Return the encodings of the distances `length - 1` down to 0 (Vaswani et al. 2017; Dai et al. 2019, section 3.3).

    They are built in float32 whatever the model's dtype: bfloat16 cannot count beyond 256.

    Args:
        length: Number of distances S.
        width: Even width D; the first half are sines, the second cosines.
        clamp_length: Larger distances are encoded as this one; no limit if it is not positive.
        device: Where to build them.

    Returns:
        float32 [S, D]; the last row is distance 0.
    """
    distance = torch.arange(length - 1, -1, -1, device=device, dtype=torch.float32)
    if clamp_length > 0:
        distance = distance.clamp(max=clamp_length)
    angle = torch.outer(distance, inverse_frequencies(width, device))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def inverse_frequencies(width: int, device: torch.device | None = None) -> Tensor:
    """Return the angle that each sinusoid gains per step of distance, float32 [D / 2]."""
    return 1 / 10000 ** (torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)


def rows_of_distances(table: Tensor, length: int, clamp_length: int = -1) -> Tensor:
    """Return the rows of a learned table for the distances `length - 1` down to 0.

    Args:
        table: [N, ...], the last row for distance 0.
        length: Number of distances S; those beyond the table get its first row.
        clamp_length: Only this many of the last rows are used; no limit if it is not positive.

    Returns:
        [S, ...], the last row for distance 0.
    """
    if clamp_length > 0:
        table = table[-clamp_length:]
    missing = length - table.shape[0]
    if missing <= 0:
        return table[-length:]
    return torch.cat([table[:1].expand(missing, *table.shape[1:]), table])


class PositionalEmbedding(nn.Module):
    """The sinusoids as the published files know them: with their frequencies as a buffer.

    The buffer only keeps the file format. The numbers are computed anew in float32, since a file may hold the
    frequencies rounded to its own dtype, or not at all.
    """

    inv_freq: Tensor

    def __init__(self, demb: int) -> None:
        super().__init__()
        self.demb = demb
        self.register_buffer("inv_freq", inverse_frequencies(demb))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Take nothing from a state dict, which may have the frequencies or not."""

    def forward(self, length: int, clamp_length: int, like: Tensor) -> Tensor:
        """Return the encodings of distances [S, D] in the dtype and on the device of `like`."""
        return sinusoids(length, self.demb, clamp_length, like.device).to(like.dtype)
