"""Weights of eight bits, for faster reading and writing on the CPU when its small cost is accepted."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic
from torch.ao.quantization import quantize_dynamic

from transformer_xl.modeling.heads import TransfoXLLMHeadModel


class Int8Linear(dynamic.Linear):
    """A linear layer with weights of eight bits, in a model of any dtype; torch's own takes float32 only."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., input width] -> [..., output width]."""
        rounded = cast(Callable[[Tensor], Tensor], super().forward)
        return rounded(x.float()).to(x.dtype)


def quantize_weights(model: TransfoXLLMHeadModel) -> TransfoXLLMHeadModel:
    """Return a copy of the model, for inference on the CPU, whose layers hold their matrices as int8.

    The matrices of attention and feed-forward are rounded, each row of weights by its own scale, and what they are
    multiplied with is rounded at each call; sums are exact. It is torch's dynamic quantisation. All else, embedding,
    softmax and memory, becomes bfloat16, with positions, softmax statistics and losses in float32 as in any model of
    that dtype. Measure the cost on your own text with `evaluate`.

    Raises:
        ValueError: The model is not in float32, or not on the CPU.

    Example:
        >>> small = quantize_weights(model)
        >>> small.generate(input_ids, max_new_tokens=20)
    """
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ValueError(
            f"the model is {model.dtype} on {model.device}, but only float32 on the CPU can be quantised: use "
            "model.float().cpu() first"
        )
    quantized: TransfoXLLMHeadModel = copy.deepcopy(model).train(False)
    with warnings.catch_warnings():
        # torch is moving this function to torchao and says so at every call.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(deprecated|reduce_range).*")
        quantize_dynamic(quantized.transformer.layers, _per_row_int8(), mapping={nn.Linear: Int8Linear}, inplace=True)
    return quantized.bfloat16()


def _per_row_int8() -> dict[type[nn.Module], torch.ao.quantization.QConfig]:
    return {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
