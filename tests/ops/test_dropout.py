from __future__ import annotations

import pytest
import torch

from transformer_xl.ops.dropout import dropout, dropout_mask


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_so_many_numbers_are_dropped_and_the_mean_stays(probability):
    mask = dropout_mask(torch.empty(1000, 1001), probability)
    assert (mask == 0).float().mean().item() == pytest.approx(probability, abs=2e-3)
    assert mask.mean().item() == pytest.approx(1, abs=1e-2)
    assert mask.unique().numel() == 2


def test_neighbours_are_dropped_independently():
    dropped = dropout_mask(torch.empty(1_000_000), 0.5) == 0
    for apart in (1, 2, 3, 4):
        both = (dropped[:-apart] & dropped[apart:]).float().mean().item()
        assert both == pytest.approx(0.25, abs=3e-3)


def test_the_gradient_goes_where_the_numbers_went():
    x = torch.randn(7, 5, requires_grad=True)
    result = dropout(x, 0.4)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    torch.testing.assert_close(result, x * gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shape_and_dtype_are_kept(dtype):
    x = torch.ones(3, 5, dtype=dtype)
    assert dropout(x, 0.3).dtype == dtype
    assert dropout(x, 0.3).shape == x.shape


def test_nothing_or_everything_can_be_dropped():
    x = torch.ones(9)
    assert dropout(x, 0.0) is x
    assert dropout(x, 1.0).tolist() == [0.0] * 9


def test_a_seed_repeats_the_mask():
    first = torch.manual_seed(1) and dropout_mask(torch.empty(99), 0.5)
    assert torch.equal(torch.manual_seed(1) and dropout_mask(torch.empty(99), 0.5), first)
