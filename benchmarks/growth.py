"""Time and memory must not grow with the position in a text: tokens from 100 to 20,000, and scoring of long texts."""

from __future__ import annotations

import resource
import time

import torch
from comparison import Comparison
from sizes import SMALL
from timing import Spread

POSITIONS = (100, 1_000, 5_000, 20_000)
LENGTHS = (5_000, 10_000, 20_000, 40_000)


def run(comparison: Comparison) -> None:
    from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel
    from transformer_xl.scoring import score
    from transformer_xl.sessions import Sampling, Session

    torch.manual_seed(0)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**SMALL)).eval()
    comparison.section("growth (small model): a token at a position of the text, flat")
    session, taken = Session(model).feed(torch.tensor([1])), []
    began = time.perf_counter()
    for _ in session.write(max(POSITIONS) + 100, Sampling(temperature=0)):
        now = time.perf_counter()
        taken.append(now - began)
        began = now
        if len(taken) == 300:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for position in POSITIONS:
        comparison.row(f"position {position:,}", Spread(tuple(taken[position - 100 : position + 100])))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    comparison.row("memory gained from position 300 to the end, MiB", None, "flat", mebibytes=grown / 1024)

    comparison.section("growth (small model): scoring a text of a length, linear")
    for length in LENGTHS:
        ids = torch.randint(0, model.config.vocab_size, (length,))
        began = time.perf_counter()
        score(model, [ids])
        seconds = time.perf_counter() - began
        comparison.row(f"{length:,} tokens", Spread((seconds,)), microseconds_a_token=1e6 * seconds / length)
