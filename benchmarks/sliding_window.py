"""The paper's comparison: evaluation segment by segment against recomputing a sliding window for each token."""

from __future__ import annotations

import time
from functools import partial

import torch
from comparison import Comparison
from sizes import SMALL
from timing import take_turns

SEGMENT = 128
PAPER = {800: 363, 1800: 773, 2800: 1409, 3800: 1874}


def run(comparison: Comparison) -> None:
    from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel
    from transformer_xl.modeling.reading import Reader

    comparison.section("a token of evaluation: recomputed sliding window against segments with memory (small model)")
    settings = SMALL | {"same_length": True, "clamp_len": -1, "initial_memory": "empty"}
    for length, paper in PAPER.items():
        torch.manual_seed(0)
        # A window sees `length` tokens; with memory each token sees as many.
        model = TransfoXLLMHeadModel(TransfoXLConfig(**settings | {"mem_len": length})).eval()
        ids = torch.randint(0, model.config.vocab_size, (1, length + 4 * SEGMENT + 1))

        @torch.no_grad()
        def window(model: TransfoXLLMHeadModel, ids: torch.Tensor, length: int) -> float:
            began = time.perf_counter()
            for start in range(4):
                model(ids[:, start : start + length], logits_to_keep=1, use_cache=False)
            return (time.perf_counter() - began) / 4

        @torch.no_grad()
        def segments(model: TransfoXLLMHeadModel, ids: torch.Tensor, length: int) -> float:
            reader = Reader(model)
            reader.hidden_states(ids[:, :length])
            began = time.perf_counter()
            for start in range(length, ids.shape[1] - 1, SEGMENT):
                reader.losses(ids[:, start : start + SEGMENT], ids[:, start + 1 : start + SEGMENT + 1])
            return (time.perf_counter() - began) / (4 * SEGMENT)

        # From the beginning of a text, both ways see all of it, so that they must give the same.
        with torch.no_grad():
            at_once = model(ids[:, :length], logits_to_keep=1).logits[0, -1]
            reader = Reader(model)
            for segment in ids[:, :length].split(SEGMENT, dim=1):
                logits = reader.read(segment, logits_to_keep=1).logits
            comparison.require_close("log-probability", logits[0, -1].max().item(), at_once.max().item())
        spreads = take_turns(
            {"window": partial(window, model, ids, length), "segments": partial(segments, model, ids, length)},
            comparison.runs,
        )
        faster = spreads["window"].median / spreads["segments"].median
        comparison.row(f"attention length {length:,}, window", spreads["window"])
        comparison.row(
            f"attention length {length:,}, segments", spreads["segments"], f"paper {paper}", times_faster=faster
        )
