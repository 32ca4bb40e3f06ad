"""What a text costs a model, and the ways in which people quote it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transformer_xl.evaluation.protocol import Protocol
from transformer_xl.text.counts import TextCounts
from transformer_xl.text.vocabulary import UNIT_NAMES, Unit


@dataclass(frozen=True)
class Score:
    """What a text costs a model: `nats` over all of its `tokens` scored, by `protocol`, in `seconds`.

    `counts` of the text, where they are known, tell the same cost per character, byte and word, whatever the tokens of
    the model are.
    """

    nats: float
    tokens: int
    protocol: Protocol
    seconds: float
    counts: TextCounts | None = None

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to guess; infinite where it overflows."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_symbol(self) -> float:
        """Bits per token: per character, byte or word, as the vocabulary has it."""
        return self.loss / math.log(2)

    @property
    def bits_per_character(self) -> float:
        """Bits of the whole text for each of its characters."""
        return self._bits_per(self._counts().characters)

    @property
    def bits_per_byte(self) -> float:
        """Bits of the whole text for each byte of its UTF-8 form."""
        return self._bits_per(self._counts().bytes)

    @property
    def bits_per_word(self) -> float:
        """Bits of the whole text for each of its words; words stand between white space."""
        return self._bits_per(self._counts().words)

    def __str__(self) -> str:
        return (
            f"{self.bits_per_symbol:.4f} bits per symbol, perplexity {self.perplexity:.3f}, {self.tokens:,} tokens "
            f"in {self.seconds:.1f} s ({self.protocol})"
        )

    def _counts(self) -> TextCounts:
        if self.counts is None:
            raise ValueError(
                "the characters, bytes and words of the text are not known: evaluate with counts=TextCounts.of(text)"
            )
        return self.counts

    def _bits_per(self, number: int) -> float:
        return self.nats / math.log(2) / number if number else math.nan


def loss_in_words(loss: float, unit: Unit) -> str:
    """Nats per symbol as people quote them: perplexity for words, bits per character or byte otherwise."""
    if unit == "word":
        return f"perplexity {math.exp(min(loss, 700)):.2f}"
    return f"{loss / math.log(2):.3f} bits per {UNIT_NAMES[unit]}"


def score_table(scores: Sequence[Score], unit: Unit) -> str:
    """One line for each score, with its protocol; `unit` is that of the vocabulary.

    Where the counts of the text are known, the bits are also told per character, byte and word of the text.
    """
    with_counts = all(score.counts is not None for score in scores)
    header = f"{'target':>7} {'memory':>7} {'clamp':>7} {f'bits per {UNIT_NAMES[unit]}':>18} {'perplexity':>11}"
    if with_counts:
        header += f" {'per character':>14} {'per byte':>9} {'per word':>9}"
    lines = [f"{header} {'tokens':>11} {'seconds':>8}   protocol"]
    for score in scores:
        protocol = score.protocol
        clamp = "none" if protocol.clamp_length < 0 else f"{protocol.clamp_length:,}"
        line = (
            f"{protocol.target_length:7,} {protocol.memory_length:7,} {clamp:>7} {score.bits_per_symbol:18.4f} "
            f"{score.perplexity:11.3f}"
        )
        if with_counts:
            line += f" {score.bits_per_character:14.4f} {score.bits_per_byte:9.4f} {score.bits_per_word:9.4f}"
        lines.append(f"{line} {score.tokens:11,} {score.seconds:8.1f}   {protocol.conditions}")
    return "\n".join(lines)
