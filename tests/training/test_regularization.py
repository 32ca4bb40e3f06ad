from __future__ import annotations

import pytest
import torch

from transformer_xl.data.segments import NOT_COUNTED
from transformer_xl.training.regularization import ActivationRegularization, only_later_half


@pytest.mark.parametrize(("length", "first"), [(6, 3), (7, 3), (1, 0)])
def test_only_the_later_half_of_a_segment_counts(length, first):
    targets = torch.arange(2 * length).view(2, length)
    half = only_later_half(targets)
    assert (half[:, :first] == NOT_COUNTED).all()
    assert torch.equal(half[:, first:], targets[:, first:])
    assert targets.min() == 0


def test_the_penalty_is_of_the_states_before_their_dropout():
    dropout = torch.nn.Dropout(0.5)
    regularization = ActivationRegularization(dropout, activation=0.2, temporal=0.1)
    hidden = torch.randn(2, 5, 3, requires_grad=True)
    dropout(hidden)
    expected = 0.2 * (hidden**2).mean() + 0.1 * ((hidden[:, 1:] - hidden[:, :-1]) ** 2).mean()
    penalty = regularization.penalty()
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    assert hidden.grad.ne(0).all()


def test_a_segment_is_penalised_once_and_an_evaluation_never():
    dropout = torch.nn.Dropout(0.5)
    regularization = ActivationRegularization(dropout, activation=1.0, temporal=1.0)
    dropout(torch.ones(1, 4, 2))
    assert regularization.penalty() == 1
    assert regularization.penalty() == 0
    dropout.eval()(torch.ones(1, 4, 2))
    assert regularization.penalty() == 0


def test_a_segment_of_one_token_has_no_neighbours():
    dropout = torch.nn.Dropout(0.5)
    regularization = ActivationRegularization(dropout, activation=0.0, temporal=1.0)
    dropout(torch.ones(1, 1, 2))
    assert regularization.penalty() == 0


def test_without_weights_nothing_is_kept():
    dropout = torch.nn.Dropout(0.5)
    regularization = ActivationRegularization(dropout, activation=0.0, temporal=0.0)
    dropout(torch.ones(1, 4, 2))
    assert regularization.penalty() == 0.0
    assert not dropout._forward_hooks
