"""A layer in the place of a matrix is called as what it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transformer_xl.modeling.linear_layers import called


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_hook(layer):
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


def with_hook_before(layer):
    layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    return layer


def with_other_forward(layer):
    original = layer.forward
    layer.forward = lambda x: 2 * original(x)
    return layer


@pytest.mark.parametrize("changed", [with_hook, with_hook_before, with_other_forward], ids=lambda each: each.__name__)
@torch.no_grad()
def test_whatever_was_put_around_a_matrix_takes_part(changed):
    layer, x = nn.Linear(128, 256, bias=False).eval(), torch.randn(1, 128)
    plain = called(layer, x)
    torch.testing.assert_close(called(changed(layer), x), 2 * plain, rtol=1e-4, atol=1e-5)


def test_hooks_on_gradients_take_part():
    layer, seen = nn.Linear(128, 256).eval(), []
    layer.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    called(layer, torch.randn(1, 128, requires_grad=True)).sum().backward()
    torch.testing.assert_close(seen, [torch.ones(1, 256)])


@torch.no_grad()
def test_another_layer_is_called_as_a_whole():
    layer, x = Doubled(128, 256).eval(), torch.randn(1, 128)
    assert torch.equal(called(layer, x), layer(x))
    assert torch.equal(called(nn.ReLU(), x), x.relu())
