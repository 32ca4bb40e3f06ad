"""Seconds and memory of scoring a text with labels, against the peer."""

from __future__ import annotations

import random
from typing import Any

from comparison import Comparison
from sizes import PUBLISHED
from timing import Spread
from worker import Side

SEGMENT = 128


def run(comparison: Comparison) -> None:
    comparison.section("128 tokens scored with labels, published size, memory 1,600")
    with comparison.sides(PUBLISHED) as (ours, peer):
        for side in (ours, peer):
            begin_to_measure_memory(side)
        scores = {side.name: scored(side, 8 * SEGMENT, SEGMENT) for side in (ours, peer)}
        comparison.require_close("nats of a token", scores["ours"]["nats"], scores["peer"]["nats"])
        spreads = {name: of_128_tokens(score, SEGMENT) for name, score in scores.items()}
        comparison.row("peer", spreads["peer"])
        peer_median = spreads["peer"].median
        comparison.row("ours", spreads["ours"], "at least 3 times", times_faster=peer_median / spreads["ours"].median)
        compare_memory(comparison, ours, peer, "at most 0.5 of the peer's")
        longer = of_128_tokens(scored(ours, 3 * 1024, 1024), 1024)
        comparison.row("ours, reading 1,024 at a time", longer, times_faster=peer_median / longer.median)


def run_int8(comparison: Comparison) -> None:
    comparison.section("128 tokens scored with labels, published size, int8 weights")
    with comparison.sides(PUBLISHED) as (ours, peer):
        begin_to_measure_memory(peer)
        scores = {side.name: scored(side, 3 * SEGMENT, SEGMENT) for side in (ours, peer)}
        comparison.require_close("nats of a token in float32", scores["ours"]["nats"], scores["peer"]["nats"])
        expected = scored(ours, 6 * 512, 512)["nats"]
        ours.ask("quantize")
        begin_to_measure_memory(ours)
        rounded = scored(ours, 6 * 512, 512)
        peer_spread, spread = of_128_tokens(scores["peer"], SEGMENT), of_128_tokens(rounded, 512)
        comparison.row("peer, float32", peer_spread)
        comparison.row(
            "ours, int8, reading 512 at a time", spread, "at least 7 times",
            times_faster=peer_spread.median / spread.median, nats_dearer=rounded["nats"] - expected,
        )  # fmt: skip
        compare_memory(comparison, ours, peer)


def begin_to_measure_memory(side: Side) -> None:
    """Forget the peak after a first text, with which the weights have come into memory: a file is read when needed."""
    scored(side, 2 * SEGMENT, SEGMENT)
    side.ask("begin_text")
    side.ask("forget_peak_memory")


def compare_memory(comparison: Comparison, ours: Side, peer: Side, bar: str = "") -> None:
    """Print the peaks since they were forgotten: of the whole process, and of what scoring itself takes."""
    peaks = {side.name: side.ask("peak_memory") for side in (ours, peer)}
    for name, peak in peaks.items():
        comparison.row(f"{name}, peak with weights and libraries, GiB", gibibytes=peak["all"])
        comparison.row(f"{name}, peak beyond what is held when it begins, GiB", gibibytes=peak["working"])
    comparison.row("the whole process", of_the_peers=peaks["ours"]["all"] / peaks["peer"]["all"])
    working = peaks["ours"]["working"] / peaks["peer"]["working"]
    comparison.row("what scoring itself takes", None, bar, of_the_peers=working)


def scored(side: Side, num_tokens: int, segment_length: int) -> dict[str, Any]:
    """Scores a text whose tokens are the rarer the higher they are (log-uniform)."""
    chance = random.Random(0)
    ids = [int(PUBLISHED["vocab_size"] ** chance.random()) - 1 for _ in range(num_tokens + 1)]
    side.ask("begin_text")
    answer: dict[str, Any] = side.ask("score", ids=ids, segment_length=segment_length)
    return answer


def of_128_tokens(score: dict[str, Any], segment_length: int) -> Spread:
    """Leaves the first segment out, which also projects the distances."""
    return Spread(tuple(seconds * SEGMENT / segment_length for seconds in score["seconds"][1:]))
