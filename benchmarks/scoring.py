"""Seconds and memory of scoring a text with labels, against the peer."""

from __future__ import annotations

import random
from functools import partial

from comparison import Comparison
from sizes import PUBLISHED
from timing import take_turns
from worker import Side


def run(comparison: Comparison) -> None:
    comparison.section("scoring with labels, published size, memory 1,600: 1,024 tokens")
    chance = random.Random(0)
    ids = [int(PUBLISHED["vocab_size"] ** chance.random()) - 1 for _ in range(1025)]
    with comparison.sides(PUBLISHED) as (ours, peer):
        loaded = {side.name: side.ask("peak_memory") for side in (ours, peer)}
        both = [scored(side, ids[:257], 128)["nats"] for side in (ours, peer)]
        comparison.require_close("nats of a token", *both)
        spreads = take_turns({side.name: partial(seconds, side, ids, 128) for side in (peer, ours)}, 2)
        for side in (peer, ours):
            comparison.row(f"{side.name}, segment 128", spreads[side.name])
        faster = spreads["peer"].median / spreads["ours"].median
        comparison.row("segment 128", None, "at least 3 times", times_faster=faster)
        peaks = {side.name: side.ask("peak_memory") for side in (ours, peer)}
        for name, peak in peaks.items():
            comparison.row(f"{name}, peak memory in GiB", peak=peak, of_it_loaded=loaded[name])
        comparison.row("peak memory", None, "at most 0.5 of the peer's", of_the_peers=peaks["ours"] / peaks["peer"])
        longer = take_turns({"ours": partial(seconds, ours, ids, 1024)}, comparison.runs)["ours"]
        comparison.row("ours, 1,024 tokens at a time", longer, times_faster=spreads["peer"].median / longer.median)
        ours.ask("quantize")
        rounded = take_turns({"ours": partial(seconds, ours, ids, 512)}, comparison.runs)["ours"]
        comparison.row(
            "ours, int8, 512 at a time", rounded, "at least 7 times",
            times_faster=spreads["peer"].median / rounded.median, nats=scored(ours, ids, 512)["nats"],
        )  # fmt: skip


def scored(side: Side, ids: list[int], segment_length: int) -> dict[str, float]:
    side.ask("begin_text")
    answer: dict[str, float] = side.ask("score", ids=ids, segment_length=segment_length)
    return answer


def seconds(side: Side, ids: list[int], segment_length: int) -> float:
    return scored(side, ids, segment_length)["seconds"]
