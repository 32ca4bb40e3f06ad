"""Dropout as a module, cheap on the CPU too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transformer_xl.ops.dropout import dropout, locked_dropout


class Dropout(nn.Dropout):
    """Drops numbers while training, as `nn.Dropout` does."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with some numbers dropped, in evaluation mode unchanged."""
        return dropout(input, self.p if self.training else 0.0)


class LockedDropout(nn.Dropout):
    """Drops the same numbers at all positions of a row while training."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., T, D] -> [..., T, D]; in evaluation mode unchanged."""
        return locked_dropout(input, self.p if self.training else 0.0)


class WordDropout(nn.Dropout):
    """Drops tokens of the vocabulary while training, each wherever it stands (Gal & Ghahramani 2016)."""

    def forward(self, embedded: Tensor, input_ids: Tensor, num_tokens: int) -> Tensor:  # type: ignore[override]
        """Return embeddings [B, T, D] of token ids [B, T] without those of some of the V tokens."""
        if not self.training or self.p == 0:
            return embedded
        kept = dropout(torch.ones(num_tokens, 1, dtype=embedded.dtype, device=embedded.device), self.p)
        return embedded * nn.functional.embedding(input_ids, kept)


def dropout_layer(locked: float | None, plain: float) -> nn.Module:
    """Return locked dropout where its probability is given, and dropout of the other probability where it is None."""
    return Dropout(plain) if locked is None else LockedDropout(locked)
