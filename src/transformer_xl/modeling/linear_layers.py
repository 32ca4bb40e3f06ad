"""Linear layers called by the product that suits their input, whatever has been put in their place."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from transformer_xl.ops import few_rows


def called(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `layer(x)`; a layer that is nothing but a matrix, here and now, may take the way of `few_rows.linear`.

    An adapter or a quantised layer must be called as a whole, and so must one with hooks or offloaded weights, which
    only come to the device of the input when their layer is called.
    """
    if type(layer) is not nn.Linear or layer.training or layer._forward_hooks or layer._forward_pre_hooks:
        return cast(Tensor, layer(x))
    if "forward" in layer.__dict__ or layer.weight.device != x.device:
        return cast(Tensor, layer(x))
    return few_rows.linear(x, layer.weight, layer.bias)
