"""When a run has to stop because it no longer learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Divergence(NamedTuple):
    """A step that a run cannot go on from.

    Attributes:
        place: Which of the steps it is.
        trusted: How many of the steps before it left weights that are known to be good.
        sentence: What happened, as the beginning of a sentence.
    """

    place: int
    trusted: int
    sentence: str


def first_divergence(
    losses: Sequence[float], gradient_norms: Sequence[float], largest_loss: float, skips_overflows: bool
) -> Divergence | None:
    """The first of some steps that diverged, or None.

    The loss of a step is that of the weights which the step before it left; its gradient makes the weights after it.

    Args:
        losses: Nats per token of each step.
        gradient_norms: Of each step, before clipping.
        largest_loss: Nats per token above which the loss has exploded.
        skips_overflows: Whether a step whose gradient is not finite is left out anyway, as in fp16.
    """
    for index, (loss, norm) in enumerate(zip(losses, gradient_norms, strict=True)):
        if not math.isfinite(loss):
            return Divergence(index, index - 1, f"the loss is {loss}")
        if loss > largest_loss:
            return Divergence(index, index - 1, f"the loss has exploded to {loss:.4g} nats")
        if not (math.isfinite(norm) or skips_overflows):
            return Divergence(index, index, f"the norm of the gradient is {norm}")
    return None
