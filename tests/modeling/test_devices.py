"""A model works where its weights are: nothing that it makes for itself lies on another device.

The other device is `meta`, which every machine has: it computes shapes only, and refuses tensors of the CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .tiny_models import ATTENTION_TYPES, random_ids, tiny_model

# How many labels fall into a band is not known without their numbers.
ONE_BAND: dict[str, Any] = {"cutoffs": [], "div_val": 1}
SETTINGS: list[dict[str, Any]] = [
    *({"attn_type": attn_type} for attn_type in ATTENTION_TYPES),
    {"initial_memory": "empty"},
    {"same_length": True, "clamp_len": 5},
    {"share_position_projection": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_training_with_memory_stays_on_the_device_of_the_weights(settings: dict[str, Any]) -> None:
    model = tiny_model(**ONE_BAND, **settings).to("meta").train()
    ids = random_ids(2, 7).to("meta")
    first = model(ids, labels=ids, attention_mask=torch.ones_like(ids))
    second = model(ids, labels=ids, mems=first.mems)
    second.loss.backward()
    assert {tensor.device.type for tensor in (second.loss, second.losses, *second.mems)} == {"meta"}
    assert {parameter.grad.device.type for parameter in model.parameters() if parameter.grad is not None} == {"meta"}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_inference_stays_on_the_device_of_the_weights(settings: dict[str, Any]) -> None:
    model = tiny_model(**ONE_BAND, **settings).to("meta")
    ids = random_ids(2, 7).to("meta")
    output = model(ids, output_attentions=True, head_mask=torch.ones(2, device="meta"))
    assert {tensor.device.type for tensor in (output.logits, *output.attentions)} == {"meta"}
    if model.transformer.has_cache:
        cache = model.new_cache()
        for segment in (ids, ids[:, :1]):
            assert model(segment, past_key_values=cache).logits.device.type == "meta"
            cache.reorder_cache(torch.tensor([1, 0]))
