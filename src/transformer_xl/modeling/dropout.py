"""Dropout as a module, cheap on the CPU too."""

from __future__ import annotations

from torch import Tensor, nn

from transformer_xl.ops.dropout import dropout


class Dropout(nn.Dropout):
    """Drops numbers while training, as `nn.Dropout` does."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with some numbers dropped, in evaluation mode unchanged."""
        return dropout(input, self.p if self.training else 0.0)
