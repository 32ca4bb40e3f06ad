"""The Transformer-XL network: token ids and memory in, hidden states and memory out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from transformer_xl.configuration import LOCKED_DROPOUT_FIELDS
from transformer_xl.keras import memory
from transformer_xl.keras.adaptive import KerasAdaptiveEmbedding
from transformer_xl.keras.distances import sinusoids, visible_positions
from transformer_xl.keras.layer import DecoderLayer
from transformer_xl.keras.noise import weight_noise
from transformer_xl.keras.padding import Arrangement, arrange
from transformer_xl.pretrained_config import TransfoXLConfig


class Reading(NamedTuple):
    """What the body makes of a segment.

    Attributes:
        hidden: The last hidden state [B, T, D].
        mems: For each layer its inputs at the last M positions [M, B, D]; None without a memory.
        hidden_states: The input of each layer and the last output, L + 1 tensors [B, T, D].
        attentions: The weights of each layer [B, H, T, S].
    """

    hidden: Any
    mems: list[Any] | None
    hidden_states: tuple[Any, ...]
    attentions: tuple[Any, ...]


class TransformerXL(keras.layers.Layer):
    """The network without a head, shared by all models.

    Attributes:
        mem_len: Number of past positions that are remembered; evaluation may change it, as the three below.
        ext_len: Last positions of a segment that the next one reads again.
        clamp_len: Distances beyond it share one encoding; -1 for no limit.
        same_length: Whether every token attends to exactly `mem_len` positions.
    """

    def __init__(self, config: TransfoXLConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if config.attn_type != 0:
            raise ValueError(
                f"attn_type={config.attn_type} is not available in Keras: use attn_type=0, or the PyTorch classes "
                "TransfoXLModel and TransfoXLLMHeadModel, which have all four."
            )
        if config.share_position_projection:
            raise ValueError(
                "share_position_projection=True is not available in Keras: use the PyTorch classes TransfoXLModel and "
                "TransfoXLLMHeadModel, which have it."
            )
        self.config = config
        self.mem_len = config.mem_len
        self.ext_len = config.ext_len
        self.clamp_len = config.clamp_len
        self.same_length = config.same_length
        noise = weight_noise(config)
        self.word_emb = KerasAdaptiveEmbedding(
            config.vocab_size,
            config.d_embed,
            config.d_model,
            config.cutoffs,
            config.div_val,
            proj_init_std=config.proj_init_std,
            embedding_initializer=noise,
            dtype=self.dtype_policy,
            name="word_emb",
        )
        self.drop = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy, name="drop")
        self.layers = [DecoderLayer(config, dtype=self.dtype_policy, name=f"layers_{i}") for i in range(config.n_layer)]

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.word_emb.build(input_shape)
        if not self.config.untie_r:
            shape, noise = (self.config.n_head, self.config.d_head), weight_noise(self.config)
            self.r_w_bias = self.add_weight(shape=shape, initializer=noise, name="r_w_bias")
            self.r_r_bias = self.add_weight(shape=shape, initializer=noise, name="r_r_bias")
        for layer in self.layers:
            layer.build((None, None, self.config.d_model))

    def call(
        self,
        input_ids: Any = None,
        mems: Sequence[Any] | None = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        need_weights: bool = False,
        training: bool | None = None,
    ) -> Reading:
        """Read one segment; arguments as in `KerasTransfoXLModel.call`."""
        if training:
            self._refuse_dropout_of_small_corpora()
        hidden = self.word_emb(input_ids) if inputs_embeds is None else ops.cast(inputs_embeds, self.compute_dtype)
        batch_size, query_length, _ = ops.shape(hidden)
        if mems is None:
            pasts = memory.begin(self.config, self.mem_len, batch_size, self.compute_dtype)
        else:
            pasts = memory.given(self.config, mems, self.compute_dtype)
        memory_length = ops.shape(pasts[0])[1]
        key_length = memory_length + query_length
        arrangement = self._arrangement(pasts, attention_mask, memory_length, query_length)
        window = self.mem_len if self.same_length and self.mem_len > 0 else None
        visible = visible_positions(query_length, key_length, window, arrangement.exists)
        distances = self.drop(self.encoded_distances(key_length), training=training)
        head_masks = self._head_masks(head_mask)
        biases = self.shared_biases()

        hidden = self.drop(arrangement.segment(hidden), training=training)
        new_mems, hidden_states, attentions = [], [], []
        for layer, past, mask in zip(self.layers, pasts, head_masks, strict=True):
            context = arrangement.context(ops.concatenate([past, hidden], axis=1))
            if self.mem_len > 0:
                new_mems.append(memory.remember(context, query_length, self.mem_len, self.ext_len))
            hidden_states.append(arrangement.restore_segment(hidden))
            hidden, weights = layer(
                hidden, context, distances, visible, biases=biases, head_mask=mask, training=training
            )
            attentions.append(arrangement.restore_weights(weights) if need_weights else weights)
        hidden = arrangement.restore_segment(self.drop(hidden, training=training))
        return Reading(hidden, new_mems or None, (*hidden_states, hidden), tuple(attentions))

    def _refuse_dropout_of_small_corpora(self) -> None:
        for name in ("word_dropout", *LOCKED_DROPOUT_FIELDS):
            if getattr(self.config, name):
                raise ValueError(
                    f"{name}={getattr(self.config, name)} is not available in Keras training: set it to "
                    f"{0.0 if name == 'word_dropout' else None}, or train with the PyTorch classes, which have it."
                )

    def encoded_distances(self, length: Any) -> Any:
        """Return the encodings of the distances `length - 1` down to 0, [S, D]."""
        return ops.cast(sinusoids(length, self.config.d_model, self.clamp_len), self.compute_dtype)

    def shared_biases(self) -> tuple[Any, Any] | None:
        """Return content and position bias [H, K] if all layers share them."""
        if self.config.untie_r:
            return None
        return ops.cast(self.r_w_bias, self.compute_dtype), ops.cast(self.r_r_bias, self.compute_dtype)

    def _arrangement(
        self, pasts: Sequence[Any], attention_mask: Any, memory_length: Any, query_length: Any
    ) -> Arrangement:
        memory_exists = is_token = None
        if self.config.initial_memory == "empty" and not (isinstance(memory_length, int) and memory_length == 0):
            memory_exists = memory.rows_with_tokens(pasts[-1])
        if attention_mask is not None:
            attention_mask = ops.cast(attention_mask, "bool")
            is_token = attention_mask[:, -query_length:]
            # In front of a mask of the segment alone, everything in the memory counts.
            front = ops.ones((ops.shape(attention_mask)[0], memory_length), "bool")
            in_memory = ops.concatenate([front, attention_mask], axis=1)[:, -(memory_length + query_length) :]
            in_memory = in_memory[:, :memory_length]
            memory_exists = in_memory if memory_exists is None else ops.logical_and(memory_exists, in_memory)
        return arrange(is_token, memory_exists, memory_length, query_length)

    def _head_masks(self, head_mask: Any) -> list[Any]:
        layers, heads = self.config.n_layer, self.config.n_head
        if head_mask is None:
            return [None] * layers
        head_mask = ops.convert_to_tensor(head_mask)
        if tuple(head_mask.shape) not in ((heads,), (layers, heads)):
            raise ValueError(
                f"head_mask has the shape {tuple(head_mask.shape)}, but must be {(heads,)} for all layers alike or "
                f"{(layers, heads)}."
            )
        return ops.unstack(ops.broadcast_to(head_mask, (layers, heads)), axis=0)
