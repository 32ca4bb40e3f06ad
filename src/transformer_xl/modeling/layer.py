"""One layer of the model: attention, then feed-forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from transformer_xl.modeling.attention import MultiHeadAttention
from transformer_xl.modeling.dropout import dropout_layer
from transformer_xl.modeling.linear_layers import called
from transformer_xl.modeling.memory import ProjectedWindow
from transformer_xl.pretrained_config import TransfoXLConfig


class PositionwiseFeedForward(nn.Module):
    """Two matrices with a ReLU between them, at each position for itself."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.pre_lnorm = config.pre_lnorm
        self.CoreNet = nn.Sequential(
            nn.Linear(config.d_model, config.d_inner),
            nn.ReLU(),
            dropout_layer(config.locked_feed_forward_dropout, config.dropout),
            nn.Linear(config.d_inner, config.d_model),
            dropout_layer(config.locked_feed_forward_dropout, config.dropout),
        )
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        inner = self.layer_norm(hidden) if self.pre_lnorm else hidden
        for part in self.CoreNet:
            inner = called(part, inner)
        output = hidden + inner
        return output if self.pre_lnorm else self.layer_norm(output)


class DecoderLayer(GradientCheckpointingLayer):
    """Attention over memory and segment, then feed-forward, each with its residual connection and LayerNorm."""

    def __init__(self, config: TransfoXLConfig, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.dec_attn = attention
        self.pos_ff = PositionwiseFeedForward(config)

    def forward(
        self,
        hidden: Tensor,
        past: Tensor | None,
        positions: Any,
        visible: Tensor | None,
        head_mask: Tensor | None = None,
        need_weights: bool = False,
        window: ProjectedWindow | None = None,
        order: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the segment after this layer [B, T, D], and the weights or None.

        The arguments are those of `MultiHeadAttention.forward`.
        """
        hidden, weights = self.dec_attn(hidden, past, positions, visible, head_mask, need_weights, window, order)
        return self.pos_ff(hidden), weights
