"""Seconds of a generated token: against the peer, against the machine's memory, against GPT-2."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from comparison import Comparison
from sizes import PUBLISHED, TINY, Size
from timing import Spread, take_turns
from worker import Side

PROMPT_LENGTH = 64
TINY_PROCESSES = 6


def run(comparison: Comparison) -> None:
    comparison.section("one token, published size, batch 1, greedy")
    with comparison.sides(PUBLISHED) as (ours, peer):
        spreads = in_turns(comparison, ours, peer, PUBLISHED, 1, 8, reading=Reading())
    report(comparison, spreads, "at least 18 times")
    against_memory(comparison, spreads["ours"], spreads["reading"])


def run_batch(comparison: Comparison) -> None:
    comparison.section("one token, published size, batch 8, greedy")
    with comparison.sides(PUBLISHED) as (ours, peer):
        spreads = in_turns(comparison, ours, peer, PUBLISHED, 8, 2)
    report(comparison, spreads, "at least 30 times")


def run_int8(comparison: Comparison) -> None:
    comparison.section("one token, published size, int8 weights, batch 1, greedy")
    with comparison.sides(PUBLISHED) as (ours, peer):
        for side in (ours, peer):
            side.ask("prompt", ids=prompt(1, PUBLISHED))
        comparison.require_equal(
            "greedy tokens in float32", *(side.ask("decode", num_tokens=4)["tokens"] for side in (ours, peer))
        )
        ours.ask("quantize")
        ours.ask("prompt", ids=prompt(1, PUBLISHED))
        spreads = take_turns({"int8": partial(seconds, ours, 20), "peer": partial(seconds, peer, 4)}, comparison.runs)
    comparison.row("peer, float32", spreads["peer"])
    faster = spreads["peer"].median / spreads["int8"].median
    comparison.row("ours, int8", spreads["int8"], "at least 25 times", times_faster=faster)


def run_tiny(comparison: Comparison) -> None:
    """Asks several processes: how fast one reads so little depends on where its memory happens to lie."""
    comparison.section("one token, tiny model, batch 1, greedy")
    taken: dict[str, tuple[float, ...]] = {"ours": (), "peer": ()}
    for _ in range(TINY_PROCESSES):
        with comparison.sides(TINY) as (ours, peer):
            for name, spread in in_turns(comparison, ours, peer, TINY, 1, 100).items():
                taken[name] += spread.seconds
    report(comparison, {name: Spread(seconds) for name, seconds in taken.items()}, "at least 4 times")


def prompt(batch_size: int, size: Size) -> list[list[int]]:
    chance = random.Random(0)
    return [[chance.randrange(size["vocab_size"]) for _ in range(PROMPT_LENGTH)] for _ in range(batch_size)]


def seconds(side: Side, num_tokens: int) -> float:
    taken: float = side.ask("decode", num_tokens=num_tokens)["seconds"]
    return taken


def in_turns(
    comparison: Comparison,
    ours: Side,
    peer: Side,
    size: Size,
    batch_size: int,
    peer_tokens: int,
    **others: Callable[[], float],
) -> dict[str, Spread]:
    """Seconds of a token after the same prompt, once both sides have written the same tokens."""
    for side in (ours, peer):
        side.ask("prompt", ids=prompt(batch_size, size))
    first = [side.ask("decode", num_tokens=4)["tokens"] for side in (ours, peer)]
    comparison.require_equal("greedy tokens", *first)
    return take_turns(
        {"ours": partial(seconds, ours, max(20, peer_tokens)), "peer": partial(seconds, peer, peer_tokens), **others},
        comparison.runs,
    )


def report(comparison: Comparison, spreads: dict[str, Spread], bar: str) -> None:
    comparison.row("peer", spreads["peer"])
    comparison.row("ours", spreads["ours"], bar, times_faster=spreads["peer"].median / spreads["ours"].median)


def against_memory(comparison: Comparison, token: Spread, reading: Spread) -> None:
    """How near a token's time comes to reading once what has to be read; both were timed in turns."""
    layers, width, memory = PUBLISHED["n_layer"], PUBLISHED["d_model"], PUBLISHED["mem_len"]
    weights = layers * (4 * width * width + 2 * width * PUBLISHED["d_inner"]) + PUBLISHED["cutoffs"][0] * width
    past = layers * 3 * memory * width  # keys, values and distances
    size = 4 * (weights + past)
    bandwidth = Reading.SIZE / reading.median
    comparison.row("bytes to read for a token, GB", gigabytes=size / 1e9)
    comparison.row("bandwidth of a matrix-vector product, GB/s", gigabytes_per_second=bandwidth / 1e9)
    share = size / bandwidth / token.median
    comparison.row("share of what the memory allows", None, "at least 0.75", share=share)


class Reading:
    """Products of a GiB of matrices with a vector; called, it returns the seconds of one, over many passes."""

    SIZE = 2**30
    PASSES = 20

    def __init__(self) -> None:
        self.matrices = [torch.randn(4096, 4096) for _ in range(16)]
        self.vector = torch.randn(1, 4096)

    @torch.no_grad()
    def __call__(self) -> float:
        from transformer_xl.ops import few_rows

        began = time.perf_counter()
        for matrix in self.matrices * self.PASSES:
            few_rows.linear(self.vector, matrix)
        return (time.perf_counter() - began) / self.PASSES


def run_gpt2(comparison: Comparison) -> None:
    """`generate()` of the same transformers: tiny models of equal size, and the published size against GPT-2 medium."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel

    pairs = {
        "tiny": (TINY, {"n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 10000}, 100, "no slower"),
        "published size and GPT-2 medium": (PUBLISHED, {"n_layer": 24, "n_embd": 1024, "n_head": 16}, 20, "no slower"),
    }
    for name, (size, gpt2_size, num_tokens, bar) in pairs.items():
        comparison.section(f"generate() of one transformers: {name}")
        with torch.no_grad():
            models = {
                "gpt2": GPT2LMHeadModel(GPT2Config(**gpt2_size, eos_token_id=None)).eval(),
                "ours": TransfoXLLMHeadModel(TransfoXLConfig(**size)).eval(),
            }
        spreads = take_turns(
            {key: partial(generating, model, num_tokens) for key, model in models.items()}, comparison.runs
        )
        comparison.row("GPT-2", spreads["gpt2"])
        comparison.row("ours", spreads["ours"], bar, times_faster=spreads["gpt2"].median / spreads["ours"].median)


def generating(model: Any, num_tokens: int) -> float:
    """Seconds of a token after the first, which also reads the prompt."""
    ids = torch.arange(8)[None]
    taken = []
    for number in (1, num_tokens + 1):
        began = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=number, do_sample=False, pad_token_id=0)
        taken.append(time.perf_counter() - began)
    return (taken[1] - taken[0]) / num_tokens
