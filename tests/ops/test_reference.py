"""The reference is the paper's formula: checked against numbers worked out by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer_xl.ops.reference import attention


def column(*numbers: float) -> Tensor:
    """One head of size 1: [B=1, H=1, length, K=1]."""
    return torch.tensor(numbers, dtype=torch.float64).view(1, 1, -1, 1)


def test_a_score_is_the_sum_of_the_four_terms_of_the_paper() -> None:
    query, key, value = 0.7, (0.3, -0.2), (5.0, 11.0)
    distances, content_bias, position_bias = (0.9, -0.4), 0.25, -0.6
    pairs = zip(key, distances, strict=True)
    scores = [(query * k) + (query * r) + (content_bias * k) + (position_bias * r) for k, r in pairs]
    weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
    read, returned = attention(
        column(query),
        column(*key),
        column(*value),
        torch.ones(1, 1, 1, 2, dtype=torch.bool),
        distance_key=torch.tensor([[[d] for d in distances]], dtype=torch.float64),
        content_bias=torch.tensor([[content_bias]], dtype=torch.float64),
        position_bias=torch.tensor([[position_bias]], dtype=torch.float64),
        need_weights=True,
    )
    torch.testing.assert_close(returned.flatten().tolist(), weights, rtol=1e-6, atol=0)
    expected = sum(weight * v for weight, v in zip(weights, value, strict=True))
    torch.testing.assert_close(read.item(), expected, rtol=1e-6, atol=0)


def test_shaws_number_of_a_distance_is_added_before_the_division() -> None:
    query = torch.ones(1, 1, 1, 4)
    weights = attention(
        query,
        torch.zeros(1, 1, 2, 4),
        torch.zeros(1, 1, 2, 4),
        torch.ones(1, 1, 1, 2, dtype=torch.bool),
        distance_key=torch.zeros(1, 2, 4),
        distance_bias=torch.tensor([[2.0, 0.0]]),
        need_weights=True,
    )[1]
    torch.testing.assert_close(weights.flatten(), torch.softmax(torch.tensor([1.0, 0.0]), dim=0))


def test_what_is_not_visible_has_no_weight_and_the_rest_sums_to_one() -> None:
    visible = torch.tensor([[True, False, True]]).view(1, 1, 1, 3)
    weights = attention(column(1.0), column(1, 2, 3), column(1, 2, 3), visible, need_weights=True)[1].flatten()
    assert weights[1] == 0
    torch.testing.assert_close(weights.sum().item(), 1.0)


def test_a_silenced_head_reads_nothing() -> None:
    query, visible = torch.randn(1, 2, 3, 4), torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    read = attention(query, query, query, visible, head_mask=torch.tensor([0.0, 1.0]))[0]
    assert not read[:, 0].any()
    assert read[:, 1].all()
