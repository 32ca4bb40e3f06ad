"""What the loss of training has beside or in the place of that of all tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from transformer_xl.data.segments import NOT_COUNTED


def only_later_half(targets: Tensor) -> Tensor:
    """The targets [B, T] without the first half of each segment, whose tokens see the least (the paper's half loss)."""
    half = targets.clone()
    half[:, : targets.shape[1] // 2] = NOT_COUNTED
    return half


class ActivationRegularization:
    """Penalties on the last hidden states of a model, before their dropout (Merity et al. 2017).

    Args:
        output_dropout: The module that the last hidden states [B, T, D] go through.
        activation: Weight of the mean square of the states, which keeps them small.
        temporal: Weight of the mean square of the difference of neighbours, which keeps them slow.
    """

    def __init__(self, output_dropout: nn.Module, activation: float, temporal: float) -> None:
        self.activation = activation
        self.temporal = temporal
        self._hidden: Tensor | None = None
        if activation or temporal:
            output_dropout.register_forward_hook(self._remember)

    def penalty(self) -> Tensor | float:
        """The penalty on the segment that was read last, which has a gradient; 0 if there is none to pay."""
        if self._hidden is None:
            return 0.0
        hidden, self._hidden = self._hidden.float(), None
        penalty = self.activation * hidden.square().mean()
        if self.temporal and hidden.shape[1] > 1:
            penalty = penalty + self.temporal * hidden.diff(dim=1).square().mean()
        return penalty

    def _remember(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        if module.training and torch.is_grad_enabled():
            self._hidden = arguments[0]
