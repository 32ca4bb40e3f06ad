"""Models small enough to be run hundreds of times, whose every weight matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.modeling.heads import TransfoXLLMHeadModel

VOCABULARY = 50
ATTENTION_TYPES = (0, 1, 2, 3)
INITIAL_MEMORIES = ("zeros", "empty")


def tiny_config(**changes: Any) -> TransfoXLConfig:
    """Three bands, two layers, two heads, no dropout, memory for 6 positions; every field may be changed."""
    fields = {
        "vocab_size": VOCABULARY,
        "cutoffs": [10, 30],
        "d_model": 16,
        "d_embed": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
        "div_val": 2,
        "n_layer": 2,
        "mem_len": 6,
        "clamp_len": -1,
        "same_length": False,
        "dropout": 0.0,
        "tgt_len": 8,
        "eos_token_id": None,
    }
    return TransfoXLConfig(**{**fields, **changes})


def tiny_model(model_class: type[Any] = TransfoXLLMHeadModel, **changes: Any) -> Any:
    """A model in evaluation mode whose parameters are noise around 0, or around 1 where they scale."""
    model = model_class(tiny_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float(name.endswith("layer_norm.weight")), std=0.3)
    return model


def random_ids(*shape: int) -> Tensor:
    """Token ids of all bands."""
    return torch.randint(VOCABULARY, shape)


def read_in_segments(
    model: Any, ids: Tensor, lengths: Sequence[int], mems: Sequence[Tensor] | None = None
) -> tuple[Tensor, Sequence[Tensor] | None]:
    """The log-probabilities of a text [B, T, V] that is read in segments of these lengths, and the memory after it."""
    scores = []
    with torch.no_grad():
        for segment in ids.split(list(lengths), dim=1):
            output = model(segment, mems=mems)
            mems = output.mems
            scores.append(output.logits)
    return torch.cat(scores, dim=1), mems


def assert_close(ours: Tensor, expected: Tensor, what: str = "numbers") -> None:
    """Fails unless two results of different orders of computation agree."""
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5, msg=lambda text: f"{what}: {text}")
