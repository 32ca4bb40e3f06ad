"""Seconds of a training step, forward and backward, against the peer."""

from __future__ import annotations

import random
from functools import partial

from comparison import Comparison
from sizes import ENWIK8_BASE, WT103_BASE, Size
from timing import take_turns
from worker import Side

SHAPES = {
    "enwik8 base, batch 2, segment and memory 512": (ENWIK8_BASE, 2, 512, 2.1),
    "WikiText-103 base, batch 4, segment and memory 150": (WT103_BASE, 4, 150, 1.5),
}


def run(comparison: Comparison) -> None:
    for name in SHAPES:
        compare(comparison, name)


def compare(comparison: Comparison, name: str) -> None:
    size, batch_size, length, bar = SHAPES[name]
    comparison.section(f"training step with dropout: {name}")
    ids = some_ids(size, batch_size, length)
    with comparison.sides(size) as (ours, peer):
        exact = [side.ask("train", ids=ids, targets=ids, dropout=False) for side in (ours, peer)]
        comparison.require_close("loss without dropout", exact[0]["loss"], exact[1]["loss"])
        for parameter, norm in exact[1]["norms"].items():
            comparison.require_close(f"gradient of {parameter}", exact[0]["norms"][parameter], norm, 1e-3)
        spreads = take_turns({side.name: partial(seconds, side, ids) for side in (peer, ours)}, comparison.runs)
    faster = spreads["peer"].median / spreads["ours"].median
    comparison.row("peer", spreads["peer"])
    comparison.row("ours", spreads["ours"], f"at least {bar} times", times_faster=faster)


def some_ids(size: Size, batch_size: int, length: int) -> list[list[int]]:
    """Tokens whose frequency falls with their rank, as words' does (log-uniform)."""
    chance = random.Random(0)
    return [[int(size["vocab_size"] ** chance.random()) - 1 for _ in range(length)] for _ in range(batch_size)]


def seconds(side: Side, ids: list[list[int]]) -> float:
    taken: float = side.ask("train", ids=ids, targets=ids, dropout=True)["seconds"]
    return taken
