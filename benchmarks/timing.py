"""One timer for all: implementations take turns, so that a busy moment of the machine meets each of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The seconds that runs of one implementation took."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        shortest, longest = min(self.seconds), max(self.seconds)
        return (
            f"{1e3 * self.median:10,.1f} ms ({1e3 * shortest:,.1f} to {1e3 * longest:,.1f}, {len(self.seconds)} runs)"
        )

    def to_json(self) -> dict[str, float]:
        return {"median": self.median, "min": min(self.seconds), "max": max(self.seconds), "runs": len(self.seconds)}


def take_turns(closures: dict[str, Callable[[], float]], runs: int) -> dict[str, Spread]:
    """Run each closure once to warm up and then `runs` times, in turns; a closure returns the seconds it took."""
    for closure in closures.values():
        closure()
    seconds: dict[str, list[float]] = {name: [] for name in closures}
    for _ in range(runs):
        for name, closure in closures.items():
            seconds[name].append(closure())
    return {name: Spread(tuple(taken)) for name, taken in seconds.items()}
