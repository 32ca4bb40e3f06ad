"""The fields of the outputs, in the order of transformers 4.37.2."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from transformer_xl.modeling.outputs import (
    TransfoXLLMHeadModelOutput,
    TransfoXLModelOutput,
    TransfoXLSequenceClassifierOutputWithPast,
)


@pytest.mark.parametrize(
    ("output_class", "names"),
    [
        (TransfoXLModelOutput, ["last_hidden_state", "mems", "hidden_states", "attentions"]),
        (
            TransfoXLLMHeadModelOutput,
            ["losses", "prediction_scores", "mems", "hidden_states", "attentions", "loss"],
        ),
        (TransfoXLSequenceClassifierOutputWithPast, ["loss", "logits", "mems", "hidden_states", "attentions"]),
    ],
)
def test_fields_have_the_published_names_and_order(output_class: type, names: list[str]) -> None:
    assert [field.name for field in fields(output_class)][: len(names)] == names


def test_logits_are_the_prediction_scores() -> None:
    scores = torch.randn(1, 2, 3)
    assert TransfoXLLMHeadModelOutput(prediction_scores=scores).logits is scores
    assert TransfoXLLMHeadModelOutput().logits is None
