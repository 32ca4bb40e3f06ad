"""Linear layers called by the product that suits their input, whatever has been put in their place."""

from __future__ import annotations

from typing import TypeGuard, cast

from torch import Tensor, nn

from transformer_xl.ops import few_rows


def called(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `layer(x)`; a layer that is nothing but a matrix may take the way of `few_rows.linear` for inference."""
    if layer.training or not is_bare(layer, x):
        return cast(Tensor, layer(x))
    return few_rows.linear(x, layer.weight, layer.bias)


def is_bare(layer: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
    """Return whether a layer is nothing but a matrix, here and now, so that it need not be called as a whole.

    An adapter or a quantised layer must be, and so must one with hooks or offloaded weights, which only come to the
    device of the input when their layer is called.
    """
    if type(layer) is not nn.Linear or "forward" in layer.__dict__ or layer.weight.device != x.device:
        return False
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return not hooks
