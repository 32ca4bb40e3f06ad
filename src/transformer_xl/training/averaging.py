"""The average of a model's parameters over the steps of a run, which often predicts better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from transformer_xl.training.shares import fill, whole


class Averaging:
    """The running average of parameters.

    Args:
        model: The model whose parameters are averaged; if they are shared out over processes, so is the average.
        decay: What of the average stays at a step (Polyak & Juditsky 1992 as an exponential average); None for the mean
            of all steps, in which each counts the same.

    Attributes:
        count: How many steps are in the average.

    Example:
        >>> averaging = Averaging(model, decay=0.999)
        >>> averaging.update()                  # after each step
        >>> with averaging.applied():           # the model has the averages here
        ...     evaluate(model, ids, protocol)
    """

    def __init__(self, model: nn.Module, decay: float | None = None) -> None:
        self._parameters = dict(model.named_parameters())
        self.decay = decay
        self.count = 0
        self._averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are after a step; the first are the average."""
        self.count += 1
        if self.count == 1:
            self._averages = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
            return
        current = [self._parameters[name].detach() for name in self._averages]
        weight = 1 / self.count if self.decay is None else 1 - self.decay
        torch._foreach_lerp_([*self._averages.values()], current, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lends the model its averages, if there are any yet, and then gives it back what it had, to the bit."""
        if self.count == 0:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(own)

    def state_dict(self) -> dict[str, Any]:
        """The count, and the averages by the names of the parameters, whole in all processes."""
        return {"count": self.count, "averages": {name: whole(average) for name, average in self._averages.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.count = state["count"]
        self._averages = {name: torch.empty_like(self._parameters[name].detach()) for name in state["averages"]}
        for name, average in self._averages.items():
            fill(average, state["averages"][name])

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._parameters[name].copy_(value)
