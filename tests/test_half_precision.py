"""A model in bfloat16 believes, writes and scores what it does in float32, up to the rounding of its weights."""

from __future__ import annotations

import copy

import pytest
import torch

from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel
from transformer_xl.scoring import score
from transformer_xl.sessions import Sampling, Session


@pytest.fixture(scope="module")
def models() -> tuple[TransfoXLLMHeadModel, TransfoXLLMHeadModel]:
    """The same model in float32 and in bfloat16, with three bands and a past longer than bfloat16 can count."""
    torch.manual_seed(2)
    config = TransfoXLConfig(
        vocab_size=60, cutoffs=[20, 40], d_model=32, d_embed=32, n_head=2, d_head=16, d_inner=32, div_val=2, n_layer=2,
        mem_len=300, init_std=0.1,
    )  # fmt: skip
    exact = TransfoXLLMHeadModel(config).eval()
    return exact, copy.deepcopy(exact).to(torch.bfloat16)


def ids(length: int) -> torch.Tensor:
    return torch.randint(60, (2, length), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("cached", [True, False])
def test_scores_and_losses_are_float32_and_close(models, cached: bool) -> None:
    exact, half = (
        model(ids(320), shift_labels=ids(320), logits_to_keep=0, past_key_values=model.new_cache() if cached else None)
        for model in models
    )
    for one, other in ((half.losses, exact.losses), (half.logits, exact.logits), (half.loss, exact.loss)):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.1)
    torch.testing.assert_close(half.loss, exact.loss, rtol=0, atol=0.005)


def test_a_session_decodes_close_to_float32(models) -> None:
    exact, half = (Session(model, batch_size=2).feed(ids(310)) for model in models)
    for token in exact.write(20, Sampling(temperature=0)):
        half.feed(token[:, None])
        believed = half.log_probabilities()
        assert believed.dtype == torch.float32
        torch.testing.assert_close(believed, exact.log_probabilities(), rtol=0, atol=0.1)


def test_a_document_costs_the_same_within_a_percent(models) -> None:
    exact, half = (score(model, [ids(700)[0]])[0] for model in models)
    assert half.losses.dtype == "float32"
    assert half.nats == pytest.approx(exact.nats, rel=0.01)


def test_training_in_half_precision_gives_a_loss_in_float32_and_a_gradient_to_all(models) -> None:
    half = copy.deepcopy(models[1]).train()
    loss = half(ids(12), labels=ids(12)).loss
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in half.parameters())
