from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from transformer_xl.evaluation import Protocol, Score, evaluate, loss_in_words, score_table
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig

PROTOCOL = Protocol(target_length=8, memory_length=64)


@pytest.fixture
def model() -> TransfoXLLMHeadModel:
    torch.manual_seed(0)
    config = TransfoXLConfig(
        11, [], 16, 16, 2, 8, 32, 1, n_layer=2, mem_len=8, clamp_len=-1, same_length=False, initial_memory="empty",
        init_std=0.3, dropout=0.5,
    )  # fmt: skip
    return TransfoXLLMHeadModel(config)


@pytest.fixture
def ids() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 11, 60, dtype=np.uint8)


def nats_at_once(model: TransfoXLLMHeadModel, ids: np.ndarray) -> float:
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        return model.train(False)(tokens[:, :-1], shift_labels=tokens[:, 1:]).losses.sum().item()


@pytest.mark.parametrize("target_length", [1, 7, 8, 59, 100])
def test_the_score_does_not_depend_on_how_the_text_is_cut(model, ids, target_length):
    score = evaluate(model, ids, Protocol(target_length, memory_length=60))
    assert score.tokens == 59
    assert score.nats == pytest.approx(nats_at_once(model, ids), rel=1e-5)


def test_without_memory_each_pass_stands_alone(model, ids):
    score = evaluate(model, ids, Protocol(target_length=20, memory_length=0))
    assert score.nats == pytest.approx(sum(nats_at_once(model, ids[i : i + 21]) for i in (0, 20, 40)), rel=1e-5)


@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_streams_side_by_side_score_every_token_once(model, ids, batch_size):
    assert evaluate(model, ids, dataclasses.replace(PROTOCOL, batch_size=batch_size)).tokens == 59


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(model, ids, training):
    model.train(training)
    evaluate(model, ids, Protocol(5, 3, clamp_length=4, same_length=True))
    transformer = model.transformer
    assert (transformer.mem_len, transformer.clamp_len, transformer.same_length) == (8, -1, False)
    assert model.training is training


def test_the_model_comes_back_as_it_was_after_a_mistake(model):
    with pytest.raises(ValueError, match="too few"):
        evaluate(model, np.zeros(1, dtype=np.uint8), PROTOCOL)
    assert model.transformer.mem_len == 8


def test_clamp_and_same_length_are_part_of_the_protocol(model, ids):
    scores = {
        evaluate(model, ids, protocol).nats
        for protocol in (PROTOCOL, Protocol(8, 64, clamp_length=2), Protocol(8, 4), Protocol(8, 4, same_length=True))
    }
    assert len(scores) == 4


def test_a_score_tells_perplexity_bits_and_its_protocol():
    score = Score(nats=10 * math.log(4), tokens=10, protocol=PROTOCOL, seconds=1.0)
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_symbol == pytest.approx(2)
    assert "target 8, memory 64, no clamp, batch 1" in str(score)
    assert "target 8, memory 64, no clamp, batch 1" in score_table([score], "char")


def test_a_hopeless_score_has_infinite_perplexity():
    assert Score(nats=1e6, tokens=1, protocol=PROTOCOL, seconds=1.0).perplexity == math.inf


def test_a_loss_is_told_as_people_quote_it():
    assert loss_in_words(math.log(8), "char") == "3.000 bits per character"
    assert loss_in_words(math.log(8), "byte") == "3.000 bits per byte"
    assert loss_in_words(math.log(8), "word") == "perplexity 8.00"


@pytest.mark.parametrize(
    ("name", "value"), [("target_length", 0), ("memory_length", -1), ("clamp_length", -2), ("batch_size", 0)]
)
def test_a_length_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, but must be at least"):
        dataclasses.replace(PROTOCOL, **{name: value})
