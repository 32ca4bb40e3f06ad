from __future__ import annotations

import numpy as np
import pytest
import torch

from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel
from transformer_xl.evaluation import Protocol, evaluate
from transformer_xl.quantization import quantize_weights
from transformer_xl.scoring import score
from transformer_xl.training.loop import train
from transformer_xl.training.run_folder import load_run
from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

VOCAB = 50


def make_model(**overrides) -> TransfoXLLMHeadModel:
    settings = {
        "vocab_size": VOCAB,
        "cutoffs": [10, 30],
        "d_model": 64,
        "d_embed": 64,
        "n_head": 4,
        "d_head": 16,
        "d_inner": 128,
        "n_layer": 3,
        "mem_len": 6,
        "clamp_len": -1,
        "div_val": 2,
        "eos_token_id": None,
    }
    return TransfoXLLMHeadModel(TransfoXLConfig(**settings | overrides)).eval()


@pytest.mark.parametrize("overrides", [{}, {"pre_lnorm": True}, {"attn_type": 1}, {"attn_type": 2}], ids=str)
def test_what_the_model_believes_changes_little(overrides):
    model = make_model(**overrides)
    ids = torch.randint(0, VOCAB, (2, 20))
    with torch.no_grad():
        exact, rounded = model(ids), quantize_weights(model)(ids)
    difference = (rounded.logits - exact.logits).abs().max()
    assert 0 < difference < 0.1


def test_the_model_itself_stays_as_it_is():
    model = make_model()
    ids = torch.randint(0, VOCAB, (1, 9))
    with torch.no_grad():
        before = model(ids).logits
        quantize_weights(model)
        assert torch.equal(model(ids).logits, before)


def test_it_generates_and_scores():
    quantized = quantize_weights(make_model())
    ids = torch.randint(0, VOCAB, (2, 5))
    assert quantized.generate(ids, max_new_tokens=7, do_sample=False).shape == (2, 12)
    assert np.isfinite(score(quantized, [ids[0]])[0].losses[1:]).all()


@pytest.mark.parametrize("overrides", [{}, {"pre_lnorm": True}], ids=str)
def test_what_is_no_matrix_of_a_layer_is_bfloat16_and_what_is_returned_float32(overrides):
    quantized = quantize_weights(make_model(**overrides))
    cache = quantized.new_cache()
    ids = torch.randint(0, VOCAB, (2, 9))
    with torch.no_grad():
        output = quantized(ids, shift_labels=ids, logits_to_keep=0, past_key_values=cache)
    assert {parameter.dtype for parameter in quantized.parameters()} == {torch.bfloat16}
    assert {window.keys.dtype for window in cache.windows} == {torch.bfloat16}
    assert (output.logits.dtype, output.losses.dtype) == (torch.float32, torch.float32)


def test_the_layers_take_a_quarter_of_the_memory():
    model = make_model()
    quantized = quantize_weights(model)
    assert not any(isinstance(module, torch.nn.Linear) for module in quantized.transformer.layers.modules())
    layer = quantized.transformer.layers[0].dec_attn.qkv_net
    assert layer.weight().dtype == torch.qint8


@pytest.mark.slow
def test_a_trained_model_loses_less_than_half_a_percent_of_its_perplexity(tmp_path):
    settings = RunSettings(
        TextSettings("builtin:shakespeare"),
        ModelSettings(num_layers=2, width=64, num_heads=4, inner_width=128, memory_length=32),
        TrainingSettings(segment_length=32, batch_size=16, steps=200, evaluations=1),
    )
    train(settings, tmp_path / "run")
    model, vocabulary = load_run(tmp_path / "run")
    ids = vocabulary.encode("It was the nightingale, and not the lark,\nThat pierced the fearful hollow.\n" * 50)
    exact, rounded = (evaluate(each, ids, Protocol(32, 32)) for each in (model, quantize_weights(model)))
    assert rounded.perplexity == pytest.approx(exact.perplexity, rel=5e-3)


def test_only_float32_on_the_cpu_can_be_quantised():
    with pytest.raises(ValueError, match="only float32 on the CPU"):
        quantize_weights(make_model().bfloat16())
