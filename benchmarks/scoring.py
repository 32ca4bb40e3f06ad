"""Seconds and memory of scoring a text with labels, against the peer."""

from __future__ import annotations

import random
from functools import partial
from statistics import mean
from typing import Any

from comparison import Comparison
from sizes import PUBLISHED
from timing import take_turns
from worker import Side

SEGMENT = 128


def run(comparison: Comparison) -> None:
    comparison.section("128 tokens scored with labels, published size, memory 1,600")
    with comparison.sides(PUBLISHED) as (ours, peer):
        for side in (ours, peer):
            begin_to_measure_memory(side)
        scores = {side.name: scored(side, 8 * SEGMENT, SEGMENT) for side in (ours, peer)}
        comparison.require_close("nats of a token", scores["ours"]["nats"], scores["peer"]["nats"])
        compare_memory(comparison, ours, peer, "at most 0.5 of the peer's")
        closures = {
            "peer": partial(of_128_tokens, peer, 4, SEGMENT),
            "ours": partial(of_128_tokens, ours, 4, SEGMENT),
            "longer": partial(of_128_tokens, ours, 2, 1024),
        }
        spreads = take_turns(closures, comparison.runs)
    peer_median = spreads["peer"].median
    comparison.row("peer", spreads["peer"])
    comparison.row("ours", spreads["ours"], "at least 3 times", times_faster=peer_median / spreads["ours"].median)
    longer = spreads["longer"]
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
        compare_memory(comparison, ours, peer)
        closures = {"peer": partial(of_128_tokens, peer, 3, SEGMENT), "ours": partial(of_128_tokens, ours, 3, 512)}
        spreads = take_turns(closures, comparison.runs)
    comparison.row("peer, float32", spreads["peer"])
    comparison.row(
        "ours, int8, reading 512 at a time", spreads["ours"], "at least 7 times",
        times_faster=spreads["peer"].median / spreads["ours"].median, nats_dearer=rounded["nats"] - expected,
    )  # fmt: skip


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


def of_128_tokens(side: Side, num_segments: int, segment_length: int) -> float:
    """Mean seconds for 128 tokens of a text, whose first segment is left out: it also projects the distances."""
    taken: list[float] = scored(side, num_segments * segment_length, segment_length)["seconds"]
    return mean(taken[1:]) * SEGMENT / segment_length
