from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transformer_xl.evaluation import (
    Protocol,
    context_losses,
    relative_effective_context_lengths,
    relative_gain,
)

NUM_SYMBOLS = 16
NOISE = 0.05
LENGTHS = range(10, 121, 10)


def process(shares: dict[int, float], num_positions: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """A text in which each token repeats the one that stood some way before it, but for some noise.

    `shares` says which share of the tokens repeats the one how far back.

    Returns:
        For each position, how far back it looks and whether it repeats what it finds there.
    """
    random = np.random.default_rng(0)
    lags = random.choice(list(shares), num_positions, p=list(shares.values()))
    text = random.integers(0, NUM_SYMBOLS, num_positions)
    noisy = random.random(num_positions) < NOISE
    for place in range(max(shares), num_positions):
        if not noisy[place]:
            text[place] = text[place - lags[place]]
    places = np.arange(max(shares), num_positions)
    return lags[places], text[places] == text[places - lags[places]]


def best_guesses(lags: np.ndarray, repeats: np.ndarray, reach: float = math.inf) -> dict[int, np.ndarray]:
    """What the tokens cost who knows the process, by the length of the context; further than `reach` nobody looks."""
    unlikely = NOISE / NUM_SYMBOLS
    known = np.where(repeats, -math.log(1 - NOISE + unlikely), -math.log(unlikely))
    return {length: np.where(lags <= min(length, reach), known, math.log(NUM_SYMBOLS)) for length in LENGTHS}


def test_the_effective_context_is_as_long_as_the_dependencies_of_the_text():
    lags, repeats = process(dict.fromkeys(range(10, 81, 10), 1 / 8))
    losses = {"ideal": best_guesses(lags, repeats), "near-sighted": best_guesses(lags, repeats, reach=30)}
    for hardest in (0.1, 0.5, 1.0):
        assert relative_effective_context_lengths(losses, hardest) == {"ideal": 80, "near-sighted": 30}


def test_rare_long_dependencies_are_seen_among_the_hard_positions_only():
    near, far = range(10, 41, 10), range(50, 81, 10)
    lags, repeats = process(dict.fromkeys(near, 0.249) | dict.fromkeys(far, 0.001))
    losses = {"ideal": best_guesses(lags, repeats)}
    assert relative_effective_context_lengths(losses, hardest=1.0) == {"ideal": 40}
    assert relative_effective_context_lengths(losses, hardest=0.1) == {"ideal": 80}


def test_a_model_that_only_catches_up_with_others_gains_nothing():
    good = {10: np.array([1.0, 1.0]), 20: np.array([1.0, 1.0])}
    late = {10: np.array([3.0, 3.0]), 20: np.array([1.0, 1.0])}
    assert relative_effective_context_lengths({"late": late}) == {"late": 20}
    assert relative_effective_context_lengths({"late": late, "good": good}) == {"late": 10, "good": 10}


def test_the_gain_is_that_of_the_formula():
    losses = {
        "a": {1: np.array([2.0, 4.0]), 2: np.array([1.0, 4.0])},
        "b": {1: np.array([3.0, 3.0]), 2: np.array([2.5, 1.0])},
    }
    # The baselines are 2 and 3; with more context a reaches 1 and 3, b reaches 2 and 1.
    assert relative_gain(losses, "a", 1, 2) == pytest.approx(1 - math.exp(2 - 2.5))
    assert relative_gain(losses, "b", 1, 2) == pytest.approx(1 - math.exp(1.5 - 2.5))
    assert relative_gain(losses, "a", 1, 2, hardest=0.5) == 0
    assert relative_gain(losses, "b", 1, 2, hardest=0.5) == pytest.approx(1 - math.exp(1 - 3))


def test_the_losses_of_a_context_are_those_of_a_text_that_begins_there(model, ids):
    positions = [40, 47, 59]
    losses = context_losses(model, ids, [1, 5, 33], positions, Protocol(7, 40, batch_size=2))
    for length, of_length in losses.items():
        for position, loss in zip(positions, of_length, strict=True):
            window = torch.from_numpy(ids[position - length : position + 1].astype(np.int64))[None]
            with torch.no_grad():
                expected = model.train(False)(window[:, :-1], shift_labels=window[:, 1:]).losses[0, -1].item()
            assert loss == pytest.approx(expected, rel=1e-4)


def test_a_model_gains_nothing_from_what_lies_out_of_its_reach(make_model, ids):
    """With a window of 4 tokens, itself included, two layers see the 7 tokens up to the one read last."""
    model = make_model(same_length=True)
    protocol = Protocol(16, 4, same_length=True, batch_size=8)
    losses = context_losses(model, ids, [5, 6, 7, 8, 30], range(30, 60), protocol)
    for length in (8, 30):
        np.testing.assert_allclose(losses[length], losses[7], rtol=1e-4, atol=1e-5)
    assert np.abs(losses[6] - losses[7]).max() > 1e-3
    assert relative_gain({"it": losses}, "it", 7, 30) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("losses", "arguments", "message"),
    [
        ({}, {}, "two or more lengths"),
        ({"a": {1: [1.0]}}, {}, "two or more lengths"),
        ({"a": {1: [1.0], 2: [1.0]}, "b": {1: [1.0], 3: [1.0]}}, {}, "the same two or more lengths"),
        ({"a": {1: [1.0], 2: [1.0, 2.0]}}, {}, "the same positions"),
        ({"a": {1: [], 2: []}}, {}, "the same positions"),
        ({"a": {1: [1.0], 2: [1.0]}}, {"hardest": 0}, "hardest is 0"),
        ({"a": {1: [1.0], 2: [1.0]}}, {"hardest": 1.1}, "hardest is 1.1"),
        ({"a": {1: [1.0], 2: [1.0]}}, {"threshold": 0}, "threshold is 0"),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(losses, arguments, message):
    arrays = {name: {length: np.array(each) for length, each in by.items()} for name, by in losses.items()}
    with pytest.raises(ValueError, match=message):
        relative_effective_context_lengths(arrays, **arguments)


@pytest.mark.parametrize(
    ("lengths", "positions", "message"),
    [([], [40], "lengths of at least 1"), ([0], [40], "lengths of at least 1"), ([41], [40], "must lie from 41"),
     ([5], [60], "to 59, the last token"), ([5], [], "must lie from")],
)  # fmt: skip
def test_a_context_that_the_text_does_not_have_is_refused(model, ids, lengths, positions, message):
    with pytest.raises(ValueError, match=message):
        context_losses(model, ids, lengths, positions, Protocol())
