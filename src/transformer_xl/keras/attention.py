"""Attention over memory and segment with relative positions (Dai et al. 2019, section 3.3)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from transformer_xl.keras.noise import gain_noise, weight_noise
from transformer_xl.pretrained_config import TransfoXLConfig


def shifted(scores: Any) -> Any:
    """Bring scores of distances from one column per distance to one column per key (Dai et al. 2019, appendix B).

    Each row is the one below it moved by one: with one more column in front, the rows lie so that leaving out the first
    T numbers puts every score where its key is.

    Args:
        scores: [B, H, T, 1 + S], the first column arbitrary, the last for distance 0.

    Returns:
        [B, H, T, S]; columns of later positions hold arbitrary numbers and have to be masked.
    """
    batch_size, num_heads, query_length, columns = ops.shape(scores)
    scores = ops.reshape(scores, (batch_size, num_heads, columns, query_length))
    return ops.reshape(scores[:, :, 1:], (batch_size, num_heads, query_length, columns - 1))


class RelativeAttention(keras.layers.Layer):
    """Multi-head attention with projected sinusoids of distances, content and position bias, residual and LayerNorm."""

    def __init__(self, config: TransfoXLConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = config.n_head
        self.head_size = config.d_head
        self.width = config.d_model
        self.norm_first = config.pre_lnorm
        self.own_biases = config.untie_r
        self.noise = weight_noise(config)
        self.inner_width = config.n_head * config.d_head

        def dense(units: int, name: str) -> keras.layers.Dense:
            return keras.layers.Dense(
                units, use_bias=False, kernel_initializer=self.noise, dtype=self.dtype_policy, name=name
            )

        self.qkv_net = dense(3 * self.inner_width, "qkv_net")
        self.r_net = dense(self.inner_width, "r_net")
        self.o_net = dense(config.d_model, "o_net")
        self.drop = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy, name="drop")
        self.dropatt = keras.layers.Dropout(config.dropatt, dtype=self.dtype_policy, name="dropatt")
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_epsilon,
            gamma_initializer=gain_noise(config),
            dtype=self.dtype_policy,
            name="layer_norm",
        )

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        for layer in (self.qkv_net, self.r_net, self.layer_norm):
            layer.build((None, None, self.width))
        self.o_net.build((None, None, self.inner_width))
        if self.own_biases:
            shape = (self.num_heads, self.head_size)
            self.r_w_bias = self.add_weight(shape=shape, initializer=self.noise, name="r_w_bias")
            self.r_r_bias = self.add_weight(shape=shape, initializer=self.noise, name="r_r_bias")

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
        """Return the segment after attention [B, T, D] and the weights [B, H, T, S].

        Args:
            hidden: The segment [B, T, D].
            context: Memory and segment [B, S, D].
            distances: Encodings of the distances [S, D], the last row for distance 0.
            visible: Boolean [1 or B, 1, T, S], True where attention is allowed.
            biases: Content and position bias [H, K] of all layers, if this one has none of its own.
            head_mask: [H]; 1 keeps a head, 0 silences it.
            training: Whether dropout is active.
        """
        if hidden.shape[1] == 1 and self.qkv_net.quantization_mode is None:
            return self._one_query(hidden, context, distances, visible, self.biases(biases), head_mask, training)
        query = self.queries(hidden)
        key, value = self.keys_and_values(context)
        content_bias, position_bias = self.biases(biases)
        distance_key = ops.pad(self.distance_keys(distances), [[0, 0], [1, 0], [0, 0]])
        scores = self.content_scores(query, key, content_bias)
        scores = scores + shifted(self.distance_scores(query, distance_key, position_bias))
        weights = self.weigh(scores, visible, head_mask, training)
        return self.joined(hidden, ops.matmul(weights, value), training), weights

    def _one_query(
        self,
        hidden: Any,
        context: Any,
        distances: Any,
        visible: Any,
        biases: tuple[Any, Any],
        head_mask: Any,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Return what `call` returns for a segment of one token.

        Its query is projected back to where the hidden states are, and what it reads is projected afterwards: with T
        below K that is less work than to project the whole memory.
        """
        token = hidden
        if self.norm_first:
            token, context = self.layer_norm(token), self.layer_norm(context)
        kernel = ops.cast(self.qkv_net.kernel, self.compute_dtype)
        # In the columns of the keys alone, so that the matrix is used as it lies.
        columns = [[0, 0], [0, 0], [self.inner_width, self.inner_width]]
        own_head = ops.eye(self.num_heads, dtype=self.compute_dtype)[:, :, None]
        batch_size = ops.shape(hidden)[0]
        query = self._split_heads(ops.matmul(token, kernel)[..., : self.inner_width])

        def apart(bias: Any) -> Any:
            rows = (query + bias[:, None]) * self.head_size**-0.5 * own_head
            return ops.reshape(rows, (batch_size, self.num_heads, self.inner_width))

        content_bias, position_bias = biases
        content = ops.matmul(ops.pad(apart(content_bias), columns), ops.transpose(kernel))
        position = ops.matmul(apart(position_bias), ops.transpose(ops.cast(self.r_net.kernel, self.compute_dtype)))
        scores = ops.matmul(content, ops.swapaxes(context, 1, 2)) + ops.matmul(position, ops.transpose(distances))
        weights = self.weigh(scores[:, :, None], visible, head_mask, training)
        values = ops.matmul(ops.matmul(weights[:, :, 0], context), kernel)[..., -self.inner_width :]
        values = ops.reshape(values, (batch_size, self.num_heads, self.num_heads, self.head_size))
        return self.joined(hidden, ops.sum(values * own_head, axis=2, keepdims=True), training), weights

    def queries(self, hidden: Any) -> Any:
        """Return the queries of the segment: [B, T, D] -> [B, H, T, K]."""
        return self._split_heads(self._projected(hidden, slice(None, self.inner_width)))

    def keys_and_values(self, context: Any) -> tuple[Any, Any]:
        """Return the keys and values of memory and segment: [B, S, D] -> twice [B, H, S, K]."""
        key, value = ops.split(self._projected(context, slice(self.inner_width, None)), 2, axis=-1)
        return self._split_heads(key), self._split_heads(value)

    def _projected(self, x: Any, columns: slice) -> Any:
        if self.norm_first:
            x = self.layer_norm(x)
        if self.qkv_net.quantization_mode is not None:
            return self.qkv_net(x)[..., columns]
        # Not through the layer: the queries of the memory would be computed for nothing.
        return ops.matmul(x, ops.cast(self.qkv_net.kernel, self.compute_dtype)[:, columns])

    def _split_heads(self, x: Any) -> Any:
        """[B, S, H * K] -> [B, H, S, K]."""
        batch_size, length = ops.shape(x)[:2]
        return ops.swapaxes(ops.reshape(x, (batch_size, length, self.num_heads, self.head_size)), 1, 2)

    def distance_keys(self, distances: Any) -> Any:
        """Return the projected distances: [S, D] -> [H, S, K]."""
        keys = ops.reshape(self.r_net(distances), (ops.shape(distances)[0], self.num_heads, self.head_size))
        return ops.swapaxes(keys, 0, 1)

    def content_scores(self, query: Any, key: Any, content_bias: Any) -> Any:
        """Return terms (a) and (c) of the paper's score for every pair, [B, H, T, S]."""
        return ops.matmul((query + content_bias[:, None]) * self.head_size**-0.5, ops.swapaxes(key, 2, 3))

    def distance_scores(self, query: Any, distance_key: Any, position_bias: Any) -> Any:
        """Return terms (b) and (d) for every query and row of the projected distances [H, S, K], [B, H, T, S]."""
        query = (query + position_bias[:, None]) * self.head_size**-0.5
        return ops.einsum("bhtk,hsk->bhts", query, distance_key)

    def biases(self, shared: tuple[Any, Any] | None) -> tuple[Any, Any]:
        """Return content and position bias [H, K]."""
        if shared is not None:
            return shared
        return ops.cast(self.r_w_bias, self.compute_dtype), ops.cast(self.r_r_bias, self.compute_dtype)

    def weigh(self, scores: Any, visible: Any, head_mask: Any = None, training: bool | None = None) -> Any:
        """Return the attention weights [B, H, T, S], in the dtype of the model."""
        # The softmax is taken in float32 whatever the model's dtype.
        scores = ops.where(visible, ops.cast(scores, "float32"), float("-inf"))
        # Keras warns of a softmax over a single position, which the first token without a memory has.
        weights = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
        weights = self.dropatt(ops.cast(weights, self.compute_dtype), training=training)
        if head_mask is not None:
            weights = weights * ops.cast(head_mask, weights.dtype)[:, None, None]
        return weights

    def joined(self, hidden: Any, read: Any, training: bool | None = None) -> Any:
        """Return the segment [B, T, D] with what its heads read from the values [B, H, T, K]."""
        batch_size, _, length, _ = ops.shape(read)
        read = ops.reshape(ops.swapaxes(read, 1, 2), (batch_size, length, self.inner_width))
        output = hidden + self.drop(self.o_net(read), training=training)
        return output if self.norm_first else self.layer_norm(output)
