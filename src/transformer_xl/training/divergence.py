"""When a run has to stop because it no longer learns."""

from __future__ import annotations

import math


def divergence(loss: float, gradient_norm: float | None, largest_loss: float) -> str | None:
    """What is wrong with a step, as the beginning of a sentence, or None.

    Args:
        loss: Nats per token.
        gradient_norm: Before it was clipped; None if it is not known, or if steps with overflows are left out anyway.
        largest_loss: Nats per token above which the loss has exploded.
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if loss > largest_loss:
        return f"the loss has exploded to {loss:.4g} nats"
    if gradient_norm is not None and not math.isfinite(gradient_norm):
        return f"the norm of the gradient is {gradient_norm}"
    return None
