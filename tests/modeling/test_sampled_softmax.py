"""The sampled softmax: the authors' numbers on given candidates, and the exact softmax where all are candidates."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor

from transformer_xl.modeling.sampled_softmax import (
    log_probability_of_being_drawn,
    log_uniform_candidates,
    sampled_losses,
)

from ..golden_files import GOLDEN_FOLDER, assert_equal_numbers

VOCABULARY = 40


def test_losses_and_gradients_are_the_authors_on_the_same_candidates() -> None:
    golden = load_file(GOLDEN_FOLDER / "original_sampled_softmax.safetensors")
    weight, bias, hidden = (golden[name].requires_grad_() for name in ("weight", "bias", "hidden"))
    losses = sampled_losses(
        hidden.flatten(0, 1),
        golden["labels"].flatten(),
        weight,
        bias,
        golden["candidates"],
        int(golden["num_samples"]),
    )
    losses.mean().backward()
    assert_equal_numbers(losses, golden["losses"].flatten(), "losses")
    for name, parameter in (("weight", weight), ("bias", bias), ("hidden", hidden)):
        assert_equal_numbers(parameter.grad, golden[f"gradients/{name}"], name)


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states [6, 8], labels, weights and biases of a softmax of 40 tokens."""
    torch.manual_seed(0)
    return (
        torch.randn(6, 8),
        torch.tensor([0, 1, 5, 17, 38, 39]),
        torch.randn(VOCABULARY, 8, requires_grad=True),
        torch.randn(VOCABULARY, requires_grad=True),
    )


def exact_gradient() -> Tensor:
    hidden, labels, weight, bias = problem()
    torch.nn.functional.cross_entropy(hidden @ weight.T + bias, labels).backward()
    assert weight.grad is not None
    return weight.grad


def test_with_all_tokens_as_certain_candidates_it_is_the_exact_softmax() -> None:
    hidden, labels, weight, bias = problem()
    losses = sampled_losses(hidden, labels, weight, bias, torch.arange(VOCABULARY), num_samples=10**6)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T + bias, labels, reduction="none")
    torch.testing.assert_close(losses, expected)
    losses.mean().backward()
    torch.testing.assert_close(weight.grad, exact_gradient())


def mean_gradient(num_samples: int, draws: int) -> Tensor:
    hidden, labels, weight, bias = problem()
    for _ in range(draws):
        candidates = log_uniform_candidates(num_samples, VOCABULARY)
        (sampled_losses(hidden, labels, weight, bias, candidates, num_samples).mean() / draws).backward()
    assert weight.grad is not None
    return weight.grad


def test_the_expected_gradient_comes_closer_to_the_exact_one_with_more_samples() -> None:
    exact = exact_gradient()
    errors = [(mean_gradient(samples, 300) - exact).norm() / exact.norm() for samples in (5, 20, 80, 320)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_tokens_are_drawn_as_often_as_is_said() -> None:
    torch.manual_seed(0)
    draws, num_samples = 4000, 5
    counts = torch.zeros(VOCABULARY)
    for _ in range(draws):
        candidates = log_uniform_candidates(num_samples, VOCABULARY)
        assert torch.equal(candidates, candidates.unique())
        counts[candidates] += 1
    expected = log_probability_of_being_drawn(torch.arange(VOCABULARY), num_samples, VOCABULARY).exp()
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((counts / draws - expected).abs() < 4 * deviation).all()


def test_the_sum_over_the_candidates_is_that_over_the_vocabulary_on_average() -> None:
    torch.manual_seed(0)
    scores = torch.randn(VOCABULARY)
    estimates = []
    for _ in range(4000):
        candidates = log_uniform_candidates(8, VOCABULARY)
        corrected = scores[candidates] - log_probability_of_being_drawn(candidates, 8, VOCABULARY)
        estimates.append(corrected.exp().sum())
    found = torch.stack(estimates)
    assert (found.mean() - scores.exp().sum()).abs() < 4 * found.std() / len(found) ** 0.5


def test_the_first_and_the_last_token_of_a_large_vocabulary_can_be_drawn() -> None:
    torch.manual_seed(0)
    candidates = log_uniform_candidates(200_000, 267_735)
    assert candidates[0] == 0
    assert 267_000 < candidates[-1] < 267_735
    assert log_uniform_candidates(1000, 1).tolist() == [0]


def test_the_probability_of_the_rarest_tokens_keeps_its_digits() -> None:
    ids = torch.tensor([0, 267_734])
    exact = [1 - (1 - p) ** 16_384 for p in (0.0554617278311532, 2.988559966955386e-07)]
    torch.testing.assert_close(
        log_probability_of_being_drawn(ids, 8192, 267_735).exp(), torch.tensor(exact), rtol=1e-5, atol=0
    )
