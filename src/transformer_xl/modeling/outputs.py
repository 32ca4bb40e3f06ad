"""What the models return, field by field as in transformers 4.37.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils.generic import ModelOutput


@dataclass
class TransfoXLModelOutput(ModelOutput):
    """What `TransfoXLModel` returns.

    Attributes:
        last_hidden_state: [B, T, D].
        mems: For each layer its inputs at the last M positions [M, B, D], without gradient; None if `mem_len` is 0 or
            `use_cache` is False.
        hidden_states: The input of each layer and the last output, L + 1 tensors [B, T, D], if asked for.
        attentions: The weights of each layer [B, H, T, M + T], if asked for.
        past_key_values: The cache that was given, with this segment in it.
    """

    last_hidden_state: Tensor | None = None
    mems: list[Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    past_key_values: Cache | None = None


@dataclass
class TransfoXLLMHeadModelOutput(ModelOutput):
    """What `TransfoXLLMHeadModel` returns.

    Attributes:
        losses: Negative log-likelihood of each label in nats, in token order, 0 where the label is -100: [B, T - 1] for
            `labels`, [B, T] for `shift_labels`.
        prediction_scores: Log-probabilities [B, T, V]; with labels only if `logits_to_keep` asks for them.
        mems: As in `TransfoXLModelOutput`.
        hidden_states: As in `TransfoXLModelOutput`.
        attentions: As in `TransfoXLModelOutput`.
        loss: Mean of the losses of all labels that are not -100; 0 if there is none.
        past_key_values: As in `TransfoXLModelOutput`.
    """

    losses: Tensor | None = None
    prediction_scores: Tensor | None = None
    mems: list[Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    loss: Tensor | None = None
    past_key_values: Cache | None = None

    @property
    def logits(self) -> Tensor | None:
        """The prediction scores: log-probabilities are logits of the same distribution."""
        return self.prediction_scores

    def __getitem__(self, key: Any) -> Any:
        # Trainer's label smoothing asks for a field of this name.
        return self.prediction_scores if key == "logits" else super().__getitem__(key)


@dataclass
class TransfoXLSequenceClassifierOutputWithPast(ModelOutput):
    """What `TransfoXLForSequenceClassification` returns.

    Attributes:
        loss: Cross-entropy, binary cross-entropy or mean squared error, by the problem type.
        logits: [B, number of labels], before the softmax.
        mems: As in `TransfoXLModelOutput`.
        hidden_states: As in `TransfoXLModelOutput`.
        attentions: As in `TransfoXLModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    mems: list[Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
