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
# Two memories: from this length on our side reads layer by layer.
LONG = 3200


def run(comparison: Comparison) -> None:
    comparison.section("128 tokens scored with labels, published size, memory 1,600")
    with comparison.sides(PUBLISHED) as (ours, peer):
        first = {side.name: scored(side, 8 * SEGMENT, SEGMENT)["nats"] for side in (ours, peer)}
        comparison.require_close("nats of a token", first["ours"], first["peer"])
        theirs = scored_from_rest(peer, 8 * SEGMENT, SEGMENT)
        in_segments = scored_from_rest(ours, 2 * LONG, SEGMENT)
        at_length = scored_from_rest(ours, 2 * LONG, LONG)
        comparison.require_close("nats of a token", at_length["nats"], in_segments["nats"])
        compare_memory(comparison, theirs, in_segments, "segments of 128")
        compare_memory(comparison, theirs, at_length, f"{LONG:,} at a time", "at most 0.5 of the peer's")
        closures = {
            "peer": partial(of_128_tokens, peer, 4, SEGMENT),
            "ours, segments of 128": partial(of_128_tokens, ours, 4, SEGMENT),
            "ours, 1,024 at a time": partial(of_128_tokens, ours, 2, 1024),
            f"ours, {LONG:,} at a time": partial(of_128_tokens, ours, 1, LONG),
        }
        spreads = take_turns(closures, comparison.runs)
    for name, spread in spreads.items():
        faster = {} if name == "peer" else {"times_faster": spreads["peer"].median / spread.median}
        comparison.row(name, spread, "at least 3 times" if faster else "", **faster)


def run_int8(comparison: Comparison) -> None:
    comparison.section("128 tokens scored with labels, published size, int8 weights")
    with comparison.sides(PUBLISHED) as (ours, peer):
        theirs = scored_from_rest(peer, 8 * SEGMENT, SEGMENT)
        exact = scored(ours, 8 * SEGMENT, SEGMENT)
        comparison.require_close("nats of a token in float32", exact["nats"], theirs["nats"])
        exact = scored(ours, 2 * LONG, LONG)
        ours.ask("quantize")
        rounded = scored_from_rest(ours, 2 * LONG, LONG)
        compare_memory(comparison, theirs, rounded, f"int8, {LONG:,} at a time")
        closures = {
            "peer, float32": partial(of_128_tokens, peer, 3, SEGMENT),
            "ours, int8, 512 at a time": partial(of_128_tokens, ours, 3, 512),
            f"ours, int8, {LONG:,} at a time": partial(of_128_tokens, ours, 1, LONG),
        }
        spreads = take_turns(closures, comparison.runs)
    comparison.row("a token of int8", None, nats_dearer=rounded["nats"] - exact["nats"])
    first, *others = spreads.items()
    comparison.row(*first)
    for name, spread in others:
        comparison.row(name, spread, "at least 7 times", times_faster=first[1].median / spread.median)


def scored_from_rest(side: Side, num_tokens: int, segment_length: int) -> dict[str, Any]:
    """Scores a text and tells what memory that took, once a first one has brought the weights into memory."""
    scored(side, 2 * SEGMENT, SEGMENT)
    side.ask("forget_peak_memory")
    text = scored(side, num_tokens, segment_length)
    return text | side.ask("peak_memory")


def compare_memory(
    comparison: Comparison, theirs: dict[str, Any], ours: dict[str, Any], what: str, bar: str = ""
) -> None:
    """Print the peaks in GiB: of the whole process, and of what scoring itself took."""
    for part, name in (("all", "the whole process"), ("working", "scoring itself")):
        figures = {"peers": theirs[part], "ours": ours[part], "of_the_peers": ours[part] / theirs[part]}
        comparison.row(f"memory of {name}, {what}", None, bar if part == "working" else "", **figures)


def scored(side: Side, num_tokens: int, segment_length: int) -> dict[str, Any]:
    """Scores a text whose tokens are the rarer the higher they are (log-uniform)."""
    chance = random.Random(0)
    ids = [int(PUBLISHED["vocab_size"] ** chance.random()) - 1 for _ in range(num_tokens + 1)]
    answer: dict[str, Any] = side.ask("score", ids=ids, segment_length=segment_length, left_out=SEGMENT)
    return answer


def of_128_tokens(side: Side, num_segments: int, segment_length: int) -> float:
    """Mean seconds for 128 tokens of a text; of several segments without the first, which also projects distances."""
    taken: list[float] = scored(side, num_segments * segment_length, segment_length)["seconds"]
    return mean(taken[1:] or taken) * SEGMENT / segment_length
