from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from transformer_xl.data.segments import Segments
from transformer_xl.evaluation import DynamicEvaluation, Protocol, evaluate

PROTOCOL = Protocol(target_length=8, memory_length=8, begin=0)
REPEATED = np.tile(np.array([1, 5, 2, 9, 4, 4, 7, 0, 3, 10], dtype=np.uint8), 30)


def adapting(rule: str, learning_rate: float, decay: float = 0.0) -> Protocol:
    return replace(PROTOCOL, dynamic=DynamicEvaluation(learning_rate, decay, rule))


def gradients(model, segment, mems) -> tuple[list[torch.Tensor], float, list[torch.Tensor]]:
    model.zero_grad()
    output = model(segment.inputs, mems=mems, shift_labels=segment.targets)
    output.loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()], output.losses.sum().item(), output.mems


def written_out(model, ids: np.ndarray, dynamic: DynamicEvaluation, training: np.ndarray) -> float:
    """The formulas of Krause et al. 2018, section 5, one weight after the other."""
    model.train(False)
    squares = [torch.zeros_like(parameter) for parameter in model.parameters()]
    mems, segments = None, list(Segments(training, 1, 8))
    for segment in segments:
        each, _, mems = gradients(model, segment, mems)
        squares = [square + gradient**2 / len(segments) for square, gradient in zip(squares, each, strict=True)]
    roots = [square.sqrt() for square in squares]
    mean_root = torch.cat([root.flatten() for root in roots]).mean()
    trained = [parameter.detach().clone() for parameter in model.parameters()]
    mems, nats = None, 0.0
    for segment in Segments(ids, 1, 8, begin=0):
        each, lost, mems = gradients(model, segment, mems)
        nats += lost
        for parameter, gradient, root, start in zip(model.parameters(), each, roots, trained, strict=True):
            if dynamic.rule == "sgd":
                change = -dynamic.learning_rate * gradient + dynamic.decay * (start - parameter)
            else:
                strength = torch.minimum(dynamic.decay * root / mean_root, torch.tensor(1.0))
                change = -dynamic.learning_rate * gradient / (root + dynamic.epsilon) + strength * (start - parameter)
            parameter.data += change.detach()
    return nats


@pytest.mark.parametrize(
    "dynamic",
    [DynamicEvaluation(0.5, 0.1), DynamicEvaluation(0.01, 0.05, "rms"), DynamicEvaluation(0.01, 0.9, "rms")],
    ids=str,
)
def test_the_model_learns_by_the_published_formulas(make_model, ids, dynamic):
    training = np.random.default_rng(2).integers(0, 11, 40, dtype=np.uint8)
    protocol = replace(PROTOCOL, dynamic=dynamic)
    score = evaluate(make_model(), ids, protocol, training_text=training)
    assert score.nats == pytest.approx(written_out(make_model(), ids, dynamic, training), rel=1e-6)


@pytest.mark.parametrize(("rule", "learning_rate"), [("sgd", 0.3), ("rms", 0.003)])
def test_a_text_that_repeats_itself_gets_cheaper_and_cheaper(model, rule, learning_rate):
    static = evaluate(model, REPEATED, PROTOCOL).nats
    dynamic = evaluate(model, REPEATED, adapting(rule, learning_rate), training_text=REPEATED[:50]).nats
    assert dynamic < 0.7 * static


def test_no_token_is_learned_before_it_is_scored(model):
    first_segment = REPEATED[:8]
    static = evaluate(model, first_segment, PROTOCOL)
    assert evaluate(model, first_segment, adapting("sgd", 0.5)).nats == pytest.approx(static.nats, rel=1e-6)


@pytest.mark.parametrize("rule", ["sgd", "rms"])
def test_the_model_comes_back_unchanged_to_the_bit(model, ids, rule):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    evaluate(model, ids, adapting(rule, 0.1, 0.01), training_text=ids)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training
    assert model.transformer.mem_len == 8


def test_a_model_that_diverges_is_told_and_comes_back_unchanged(model, ids):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="give a lower learning rate"):
        evaluate(model, ids, adapting("sgd", 1e30))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_weights_that_may_learn_do(model, ids):
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="needs a model that can learn"):
        evaluate(model, ids, adapting("sgd", 0.1))
    model.crit.out_layers[0].bias.requires_grad_(True)
    static, dynamic = evaluate(model, ids, PROTOCOL).nats, evaluate(model, ids, adapting("sgd", 0.5)).nats
    assert dynamic != static
    assert math.isfinite(dynamic)


def test_the_rule_rms_needs_a_training_text(model, ids):
    with pytest.raises(ValueError, match="needs training_text: give ids of the training text"):
        evaluate(model, ids, adapting("rms", 0.1))


def test_the_order_of_the_text_cannot_be_broken_up(model, ids):
    with pytest.raises(ValueError, match="no dynamic evaluation"):
        evaluate(model, ids, adapting("sgd", 0.1), side_by_side=2)
