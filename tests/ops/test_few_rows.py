"""Few rows take another way through a matrix and give what all rows give."""

from __future__ import annotations

import pytest
import torch

from transformer_xl.ops import few_rows


def written_out(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = (x.double()[..., None, :] * weight.double()).sum(-1)
    return (product if bias is None else product + bias.double()).to(x.dtype)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 1), (1, 5), (16,), (17,), (0,)], ids=str)
@pytest.mark.parametrize("num_outputs", [256, 257])
@pytest.mark.parametrize("transposed", [False, True])
@torch.no_grad()
def test_any_number_of_rows_gives_the_product(shape, num_outputs, transposed):
    weight = torch.randn(80, num_outputs).T if transposed else torch.randn(num_outputs, 80)
    x = torch.randn(*shape, 2, 80)[..., 0, :]
    assert weight.numel() >= few_rows.LARGE
    for bias in (None, torch.randn(num_outputs)):
        product = few_rows.linear(x, weight, bias)
        torch.testing.assert_close(product, written_out(x, weight, bias), rtol=1e-4, atol=1e-4)
        assert product.is_contiguous()


@torch.no_grad()
def test_half_precision_and_gradients_go_the_usual_way():
    x, weight = torch.randn(1, 80), torch.randn(256, 80)
    expected = torch.nn.functional.linear(x.bfloat16(), weight.bfloat16())
    assert torch.equal(few_rows.linear(x.bfloat16(), weight.bfloat16()), expected)
    with torch.enable_grad():
        few_rows.linear(x, weight.requires_grad_()).sum().backward()
    torch.testing.assert_close(weight.grad, x.expand_as(weight))
