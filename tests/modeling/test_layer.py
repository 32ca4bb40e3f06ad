"""A layer is attention, then feed-forward, each normalised before or after."""

from __future__ import annotations

import pytest
import torch

from transformer_xl.modeling.layer import PositionwiseFeedForward

from .tiny_models import assert_close, random_ids, tiny_config, tiny_model


@pytest.mark.parametrize("pre_lnorm", [False, True])
def test_the_feed_forward_part_adds_to_its_input_and_normalises_where_it_should(pre_lnorm: bool) -> None:
    part = PositionwiseFeedForward(tiny_config(pre_lnorm=pre_lnorm, layer_norm_epsilon=0.1))
    hidden = torch.randn(2, 3, 16)
    first, second = part.CoreNet[0], part.CoreNet[3]

    def normalised(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()

    def transformed(x: torch.Tensor) -> torch.Tensor:
        return (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias

    expected = hidden + transformed(normalised(hidden)) if pre_lnorm else normalised(hidden + transformed(hidden))
    assert_close(part(hidden), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("attn_type", [0, 1, 2, 3])
def test_checkpointed_gradients_are_those_without_checkpoints(use_reentrant: bool, attn_type: int) -> None:
    model = tiny_model(attn_type=attn_type, dropout=0.2, dropatt=0.2).train()
    ids, mask = random_ids(2, 5), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    mems = model(random_ids(2, 5)).mems
    results = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
        model.zero_grad()
        torch.manual_seed(1)
        output = model(ids, mems=mems, attention_mask=mask, labels=ids)
        output.loss.backward()
        results.append([output.loss, *output.mems, *(parameter.grad.clone() for parameter in model.parameters())])
    for checkpointed, plain in zip(results[1], results[0], strict=True):
        assert torch.equal(checkpointed, plain)


def test_checkpoints_are_really_made() -> None:
    model = tiny_model().train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    calls = []
    for layer in model.transformer.layers:
        layer.dec_attn.register_forward_hook(lambda *_: calls.append(1))
    ids = random_ids(1, 4)
    model(ids, labels=ids).loss.backward()
    assert len(calls) == 2 * len(model.transformer.layers)
