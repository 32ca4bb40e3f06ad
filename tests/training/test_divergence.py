from __future__ import annotations

import math

import pytest

from transformer_xl.training.divergence import divergence


@pytest.mark.parametrize(
    ("loss", "norm", "sentence"),
    [
        (math.nan, 1.0, "the loss is nan"),
        (math.inf, 1.0, "the loss is inf"),
        (10.5, 1.0, "the loss has exploded to 10.5 nats"),
        (3.0, math.inf, "the norm of the gradient is inf"),
        (3.0, math.nan, "the norm of the gradient is nan"),
    ],
)
def test_what_is_wrong_is_said(loss, norm, sentence):
    assert divergence(loss, norm, largest_loss=10.0) == sentence


@pytest.mark.parametrize("norm", [0.0, 1e9, None])
def test_a_step_that_learns_is_left_alone(norm):
    assert divergence(9.9, norm, largest_loss=10.0) is None
