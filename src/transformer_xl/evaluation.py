"""How well a model predicts a text, and under which protocol it was asked."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from transformer_xl.data.segments import NOT_COUNTED, Segments
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.reading import Reader
from transformer_xl.text.vocabulary import UNIT_NAMES, Ids, Unit


@dataclass(frozen=True)
class Protocol:
    """How a text is scored: a score means something only together with it.

    target_length: tokens that are read and predicted in one forward pass.
    memory_length: past tokens that are remembered from pass to pass, 0 for none.
    clamp_length: the distance from which on all tokens count as equally far, -1 for no such limit.
    same_length: whether every token sees equally many others, instead of all that the pass and the memory hold.
    batch_size: streams that are read side by side; each begins without a past, so 1 is the exact score of a text.
    """

    target_length: int = 128
    memory_length: int = 128
    clamp_length: int = -1
    same_length: bool = False
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, smallest in (("target_length", 1), ("memory_length", 0), ("clamp_length", -1), ("batch_size", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least {smallest}")

    def __str__(self) -> str:
        clamp = "no clamp" if self.clamp_length < 0 else f"clamp {self.clamp_length}"
        same = ", same length" if self.same_length else ""
        return f"target {self.target_length}, memory {self.memory_length}, {clamp}{same}, batch {self.batch_size}"


@dataclass(frozen=True)
class Score:
    """What a text costs a model: `nats` over all of its `tokens` scored, by `protocol`, in `seconds`."""

    nats: float
    tokens: int
    protocol: Protocol
    seconds: float

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The number of equally likely symbols that would be as hard to guess; infinite where it overflows."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_symbol(self) -> float:
        """Bits per token: per character, byte or word, as the vocabulary has it."""
        return self.loss / math.log(2)

    def __str__(self) -> str:
        return (
            f"{self.bits_per_symbol:.4f} bits per symbol, perplexity {self.perplexity:.3f}, {self.tokens:,} tokens "
            f"in {self.seconds:.1f} s ({self.protocol})"
        )


def loss_in_words(loss: float, unit: Unit) -> str:
    """Nats per symbol as people quote them: perplexity for words, bits per character or byte otherwise."""
    if unit == "word":
        return f"perplexity {math.exp(min(loss, 700)):.2f}"
    return f"{loss / math.log(2):.3f} bits per {UNIT_NAMES[unit]}"


def score_table(scores: Sequence[Score], unit: Unit) -> str:
    """One line for each score, with its protocol; `unit` is that of the vocabulary."""
    lines = [f"{'memory':>8} {f'bits per {UNIT_NAMES[unit]}':>20} {'perplexity':>12} {'tokens':>12}   protocol"]
    for score in scores:
        lines.append(
            f"{score.protocol.memory_length:8,} {score.bits_per_symbol:20.4f} {score.perplexity:12.3f} "
            f"{score.tokens:12,}   {score.protocol}"
        )
    return "\n".join(lines)


def evaluate(model: TransfoXLLMHeadModel, ids: Ids, protocol: Protocol) -> Score:
    """The score of a text of N tokens: each of them but the first is predicted once, in order, with carried memory.

    The model comes back as it was: its memory length, clamp, same_length and its mode.
    """
    segments = Segments(ids, protocol.batch_size, protocol.target_length)
    began = time.perf_counter()
    nats, tokens = torch.zeros((), dtype=torch.float64, device=model.device), 0
    with _reading_by(protocol, model), torch.no_grad():
        reader = Reader(model)
        for segment in segments:
            tokens += int(segment.targets.ne(NOT_COUNTED).sum())
            segment = segment.to(model.device)
            nats += reader.losses(segment.inputs, segment.targets).sum(dtype=torch.float64)
    return Score(nats.item(), tokens, protocol, time.perf_counter() - began)


@contextmanager
def _reading_by(protocol: Protocol, model: TransfoXLLMHeadModel) -> Iterator[None]:
    transformer = model.transformer
    before = (transformer.mem_len, transformer.clamp_len, transformer.same_length, model.training)
    try:
        model.train(False)
        transformer.mem_len = protocol.memory_length
        transformer.clamp_len = protocol.clamp_length
        transformer.same_length = protocol.same_length
        yield
    finally:
        transformer.mem_len, transformer.clamp_len, transformer.same_length, training = before
        model.train(training)
