"""How well a model predicts a text, under which protocol, and how far back it looks."""

from transformer_xl.evaluation.effective_context import (
    context_losses,
    relative_effective_context_lengths,
    relative_gain,
)
from transformer_xl.evaluation.measurement import evaluate
from transformer_xl.evaluation.protocol import (
    PAPER_PROTOCOLS,
    DynamicEvaluation,
    Protocol,
    paper_protocol,
    sweep,
)
from transformer_xl.evaluation.scores import Score, loss_in_words, score_table
from transformer_xl.text.counts import TextCounts

__all__ = [
    "PAPER_PROTOCOLS",
    "DynamicEvaluation",
    "Protocol",
    "Score",
    "TextCounts",
    "context_losses",
    "evaluate",
    "loss_in_words",
    "paper_protocol",
    "relative_effective_context_lengths",
    "relative_gain",
    "score_table",
    "sweep",
]
