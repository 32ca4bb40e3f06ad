"""One layer of the model: attention, then feed-forward."""

from __future__ import annotations

from typing import Any

import keras

from transformer_xl.keras.attention import RelativeAttention
from transformer_xl.keras.noise import gain_noise, weight_noise
from transformer_xl.pretrained_config import TransfoXLConfig


class PositionwiseFeedForward(keras.layers.Layer):
    """Two matrices with a ReLU between them, at each position for itself, residual and LayerNorm."""

    def __init__(self, config: TransfoXLConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = config.d_model
        self.inner_width = config.d_inner
        self.norm_first = config.pre_lnorm
        self.noise = weight_noise(config)
        # The numbers in the names are the places in the published sequence.
        self.inner = self._dense(config.d_inner, "relu", "CoreNet_0")
        self.outer = self._dense(config.d_model, None, "CoreNet_3")
        self.inner_drop = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy, name="CoreNet_2")
        self.outer_drop = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy, name="CoreNet_4")
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_epsilon,
            gamma_initializer=gain_noise(config),
            dtype=self.dtype_policy,
            name="layer_norm",
        )

    def _dense(self, units: int, activation: str | None, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=self.noise, dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.inner.build((None, None, self.width))
        self.outer.build((None, None, self.inner_width))
        self.layer_norm.build((None, None, self.width))

    def call(self, hidden: Any, training: bool | None = None) -> Any:
        """[B, T, D] -> [B, T, D]."""
        inner = self.inner(self.layer_norm(hidden) if self.norm_first else hidden)
        outer = self.outer(self.inner_drop(inner, training=training))
        output = hidden + self.outer_drop(outer, training=training)
        return output if self.norm_first else self.layer_norm(output)


class DecoderLayer(keras.layers.Layer):
    """Attention over memory and segment, then feed-forward."""

    def __init__(self, config: TransfoXLConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dec_attn = RelativeAttention(config, dtype=self.dtype_policy, name="dec_attn")
        self.pos_ff = PositionwiseFeedForward(config, dtype=self.dtype_policy, name="pos_ff")

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.dec_attn.build(input_shape)
        self.pos_ff.build(input_shape)

    def call(
        self,
        hidden: Any,
        context: Any,
        distances: Any,
        visible: Any,
        biases: tuple[Any, Any] | None = None,
        head_mask: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Return the segment after this layer [B, T, D] and the weights; arguments as in `RelativeAttention.call`."""
        hidden, weights = self.dec_attn(
            hidden, context, distances, visible, biases=biases, head_mask=head_mask, training=training
        )
        return self.pos_ff(hidden, training=training), weights
