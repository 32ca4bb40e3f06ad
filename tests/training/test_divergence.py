from __future__ import annotations

import math

import pytest

from transformer_xl.training.divergence import first_divergence


@pytest.mark.parametrize(
    ("losses", "norms", "expected"),
    [
        ([3.0, math.nan, math.nan], [1.0, 1.0, 1.0], (1, 0, "the loss is nan")),
        ([math.inf], [1.0], (0, -1, "the loss is inf")),
        ([3.0, 3.0, 10.5], [1.0, 1.0, 1.0], (2, 1, "the loss has exploded to 10.5 nats")),
        ([3.0, 3.0, math.nan], [1.0, math.inf, 1.0], (1, 1, "the norm of the gradient is inf")),
    ],
)
def test_the_first_step_that_diverged_is_found_and_the_last_weights_that_are_known_to_be_good(losses, norms, expected):
    assert first_divergence(losses, norms, largest_loss=10.0, skips_overflows=False) == expected


def test_steps_that_learn_are_left_alone():
    assert first_divergence([9.9, 3.0], [1e9, 0.0], largest_loss=10.0, skips_overflows=False) is None


def test_an_overflow_that_is_skipped_is_no_divergence():
    assert first_divergence([3.0], [math.inf], largest_loss=10.0, skips_overflows=True) is None
