"""How far a run is, and the learning rate that belongs there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformer_xl.training.settings import TrainingSettings

SMALLEST_IMPROVEMENT = 1e-4


def progress(step: int, seconds: float, steps: int, minutes: float | None) -> float:
    """How far a run is, from 0 to 1: its share of `minutes` where they are given, of `steps` otherwise."""
    share = step / steps if minutes is None else seconds / (60 * minutes)
    return min(share, 1.0)


def schedule_for(settings: TrainingSettings) -> Schedule:
    """The schedule that the settings name."""
    end, tail = 1.0, 1.0
    if settings.averaging == "mean":
        end, tail = settings.averaging_start, settings.averaging_learning_rate
    return Schedule(
        settings.schedule,
        warm_up=settings.warm_up_share,
        final=settings.final_learning_rate,
        end=end,
        tail=tail,
        plateau_patience=settings.plateau_patience,
        plateau_factor=settings.plateau_factor,
    )


@dataclass
class Schedule:
    """The factor of the learning rate at each point of a run, from 0 to 1.

    A line from 0 to 1 while `progress` is below `warm_up`, and then, until `progress` is `end`:

    - constant: 1
    - linear: a line down to `final`
    - cosine: half a cosine wave down to `final` (Loshchilov & Hutter 2017)
    - inverse_sqrt: the root of what the end of the warm-up is of now, of one step if there is no warm-up (Vaswani et
      al. 2017), at least `final`
    - plateau: `plateau_factor` for each time that more than `plateau_patience` evaluations in a row bettered the best
      loss by less than a ten-thousandth, as torch's `ReduceLROnPlateau` has it, at least `final`

    After `end` it is `tail` times what it was there.

    `best`, `waited` and `scale` are what the plateau remembers.

    Example:
        >>> schedule = Schedule("cosine", warm_up=0.2, final=0.1)
        >>> [round(schedule.factor(p), 2) for p in (0, 0.1, 0.2, 0.6, 1)]
        [0.0, 0.5, 1.0, 0.55, 0.1]
    """

    kind: str
    warm_up: float = 0.0
    final: float = 0.0
    end: float = 1.0
    tail: float = 1.0
    plateau_patience: int = 0
    plateau_factor: float = 0.5
    best: float = math.inf
    waited: int = 0
    scale: float = 1.0

    def factor(self, progress: float, step: int = 0) -> float:
        """The factor at `progress` from 0 to 1, before step number `step` (from 0 on)."""
        if progress < self.warm_up:
            return progress / self.warm_up
        if progress > self.end:
            return self.tail * self._after_warm_up(self.end, step)
        return self._after_warm_up(progress, step)

    def observe(self, validation_loss: float) -> None:
        """Takes note of an evaluation; only the plateau minds."""
        if validation_loss < self.best * (1 - SMALLEST_IMPROVEMENT):
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited > self.plateau_patience:
            self.scale, self.waited = self.scale * self.plateau_factor, 0

    def state_dict(self) -> dict[str, Any]:
        """What `observe` has changed, in plain numbers; None stands for a best loss that there is not yet."""
        return {
            "best": None if math.isinf(self.best) else self.best,
            "waited": self.waited,
            "scale": self.scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.best = math.inf if state["best"] is None else state["best"]
        self.waited, self.scale = state["waited"], state["scale"]

    def _after_warm_up(self, progress: float, step: int) -> float:
        if self.kind == "constant":
            return 1.0
        if self.kind == "plateau":
            return max(self.final, self.scale)
        if self.kind == "inverse_sqrt":
            share = self.warm_up / progress if self.warm_up else 1 / (step + 1)
            return max(self.final, math.sqrt(share))
        descent = (progress - self.warm_up) / (self.end - self.warm_up)
        remaining = 1 - descent if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * descent))
        return self.final + (1 - self.final) * remaining
