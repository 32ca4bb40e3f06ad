"""The Transformer-XL model without a head, and what all its models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from transformer_xl.modeling import memory
from transformer_xl.modeling.adaptive import AdaptiveEmbedding, ProjectedAdaptiveLogSoftmax
from transformer_xl.modeling.attention import (
    AbsoluteAttention,
    JointProjectionAttention,
    MultiHeadAttention,
    SharedProjectionAttention,
    ShawAttention,
    TransformerXLAttention,
)
from transformer_xl.modeling.distances import PositionalEmbedding, inverse_frequencies, rows_of_distances
from transformer_xl.modeling.dropout import WordDropout, dropout_layer
from transformer_xl.modeling.layer import DecoderLayer
from transformer_xl.modeling.memory import TransfoXLCache
from transformer_xl.modeling.outputs import TransfoXLModelOutput
from transformer_xl.modeling.padding import Arrangement, arrange
from transformer_xl.ops.visibility import visible_positions
from transformer_xl.pretrained_config import TransfoXLConfig


class TransfoXLPreTrainedModel(PreTrainedModel):
    """Initialisation, tying, files and resizing of all Transformer-XL models."""

    config: TransfoXLConfig
    config_class = TransfoXLConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _supports_flex_attn = True
    accepts_loss_kwargs = False
    _no_split_modules = ["DecoderLayer"]
    _keys_to_ignore_on_load_missing = [r"pos_emb\.inv_freq"]

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what `module` itself holds, by `init`, `init_range`, `init_std` and `proj_init_std`.

        Source: `weights_init` of the authors' train.py.
        """
        if isinstance(module, nn.Linear | nn.Embedding):
            self._init_weight(module.weight)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.normal_(module.weight, 1.0, self.config.init_std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.ParameterList):
            for projection in module:
                init.normal_(projection, 0.0, self.config.proj_init_std)
        elif isinstance(module, ProjectedAdaptiveLogSoftmax) and module.n_clusters:
            self._init_weight(module.cluster_weight)
            init.zeros_(module.cluster_bias)
        elif isinstance(module, PositionalEmbedding):
            init.copy_(module.inv_freq, inverse_frequencies(module.demb))
        else:
            for name, parameter in module.named_parameters(recurse=False):
                if name in ("r_emb", "r_w_bias", "r_r_bias"):
                    self._init_weight(parameter)
                elif name == "r_bias":
                    init.zeros_(parameter)

    def _init_weight(self, weight: Tensor) -> None:
        if self.config.init == "uniform":
            init.uniform_(weight, -self.config.init_range, self.config.init_range)
        else:
            init.normal_(weight, 0.0, self.config.init_std)

    def tied_weights(self) -> dict[str, str]:
        """Return which parameter of this model (key) is the same as which other (value)."""
        return {}

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return the ties, which do not all hang on `tie_word_embeddings` as transformers assumes."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return self.tied_weights()

    def get_input_embeddings(self) -> AdaptiveEmbedding:
        """Return the embedding of the tokens."""
        return cast(AdaptiveEmbedding, self.base_model.word_emb)

    def set_input_embeddings(self, new_embeddings: AdaptiveEmbedding) -> None:
        """Replace the embedding of the tokens."""
        self.base_model.word_emb = new_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, layer: int = -1, pad_to_multiple_of: int | None = None
    ) -> AdaptiveEmbedding:
        """Give the vocabulary another size by growing or shrinking one band, inputs and outputs alike.

        New rows are initialised like any other weight. The ids of later bands move by the difference, so the tokenizer
        has to follow.

        Args:
            new_num_tokens: Size V of the whole vocabulary; None changes nothing.
            layer: Band that changes; the last by default.
            pad_to_multiple_of: Round the new size up to a multiple of this.

        Returns:
            The input embedding.

        Raises:
            ValueError: There is no such band, or no token would be left in it.
        """
        embedding = self.get_input_embeddings()
        if new_num_tokens is None and pad_to_multiple_of is None:
            return embedding
        if new_num_tokens is None:
            new_num_tokens = embedding.n_token
        if pad_to_multiple_of is not None:
            new_num_tokens = -(-new_num_tokens // pad_to_multiple_of) * pad_to_multiple_of
        num_bands = len(embedding.bands)
        if not -num_bands <= layer < num_bands:
            raise ValueError(f"layer={layer} is not a band: this vocabulary has the bands 0 to {num_bands - 1}.")
        band = embedding.bands[layer]
        size = band.size + new_num_tokens - embedding.n_token
        if size < 1:
            raise ValueError(
                f"new_num_tokens={new_num_tokens} would leave {size} of the {band.size} tokens in band {layer}: a band "
                "needs at least 1, so shrink another one too."
            )
        with torch.no_grad():
            for part in (embedding, self.get_adaptive_softmax()):
                if part is not None:
                    part.resize_band(layer % num_bands, size, self._initialised)
        self.config.vocab_size = new_num_tokens
        self.config.cutoffs = [later.start for later in embedding.bands[1:]]
        self.tie_weights()
        return embedding

    def _initialised(self, rows: Tensor) -> Tensor:
        self._init_weight(rows)
        return rows

    def get_adaptive_softmax(self) -> ProjectedAdaptiveLogSoftmax | None:
        """Return the adaptive softmax, or None for a model that predicts no tokens."""
        return None


class TransfoXLModel(TransfoXLPreTrainedModel):
    """Transformer-XL without a head: token ids and memory in, hidden states and memory out.

    Example:
        >>> model = TransfoXLModel(config)
        >>> first = model(input_ids)                      # [B, T]
        >>> second = model(more_ids, mems=first.mems)     # attends to what came before
    """

    _keys_to_ignore_on_load_unexpected = [r"^crit\.", r"^score\.", r"pos_emb\.inv_freq"]

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.n_layer = config.n_layer
        self.attn_type = config.attn_type
        self.mem_len = config.mem_len
        self.ext_len = config.ext_len
        self.clamp_len = config.clamp_len
        self.same_length = config.same_length
        self.word_emb = AdaptiveEmbedding(
            config.vocab_size, config.d_embed, config.d_model, config.cutoffs, div_val=config.div_val
        )
        self.drop_words = WordDropout(config.word_dropout)
        self.drop = dropout_layer(config.locked_input_dropout, config.dropout)
        self.drop_output = dropout_layer(config.locked_output_dropout, config.dropout)
        self._create_position_parameters()
        self.layers = nn.ModuleList(DecoderLayer(config, self._attention()) for _ in range(config.n_layer))
        self.gradient_checkpointing = False
        self._tied_weights_keys = self.tied_weights()
        self.post_init()

    def _create_position_parameters(self) -> None:
        config = self.config
        longest = config.tgt_len + config.ext_len + config.mem_len
        heads = (config.n_head, config.d_head)
        if config.attn_type in (0, 2):
            self.pos_emb = PositionalEmbedding(config.d_model)
        else:
            self.r_emb = nn.Parameter(torch.empty(config.n_layer, longest, *heads))
        if config.attn_type == 0 and not config.untie_r and not config.share_position_projection:
            self.r_w_bias = nn.Parameter(torch.empty(heads))
            self.r_r_bias = nn.Parameter(torch.empty(heads))
        if config.attn_type == 1:
            self.r_w_bias = nn.Parameter(torch.empty(config.n_layer, *heads))
            self.r_bias = nn.Parameter(torch.empty(config.n_layer, longest, config.n_head))

    def _attention(self) -> MultiHeadAttention:
        if self.config.share_position_projection:
            return SharedProjectionAttention(self.config)
        attention_classes = {0: TransformerXLAttention, 1: ShawAttention, 2: AbsoluteAttention, 3: AbsoluteAttention}
        return attention_classes[self.config.attn_type](self.config)

    def tied_weights(self) -> dict[str, str]:
        """Return the biases that all layers share unless `untie_r`."""
        if self.config.attn_type != 0 or self.config.untie_r or self.config.share_position_projection:
            return {}
        return {
            f"layers.{i}.dec_attn.{bias}": bias for i in range(self.config.n_layer) for bias in ("r_w_bias", "r_r_bias")
        }

    def reset_memory_length(self, mem_len: int) -> None:
        """Remember `mem_len` positions from now on."""
        self.mem_len = mem_len

    def init_mems(self, bsz: int) -> list[Tensor] | None:
        """Return the memory before the first segment, one tensor [M, B, D] for each layer; None if `mem_len` is 0."""
        if self.mem_len == 0:
            return None
        length = self.mem_len if self.config.initial_memory == "zeros" else 0
        return memory.begin(self.n_layer, length, bsz, self.config.d_model, like=next(self.word_emb.parameters()))

    def forward(
        self,
        input_ids: Tensor | None = None,
        mems: Sequence[Tensor] | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: TransfoXLCache | None = None,
    ) -> tuple[Any, ...] | TransfoXLModelOutput:
        """Read one segment.

        Args:
            input_ids: Token ids [B, T].
            mems: What an earlier call returned, one tensor [M, B, D] for each layer; None at the beginning of a text.
            head_mask: [H] or [L, H]; 1 keeps a head, 0 silences it.
            inputs_embeds: Embeddings [B, T, D] instead of ids; they are not scaled.
            output_attentions: Whether to return the attention weights.
            output_hidden_states: Whether to return the hidden states of all layers.
            return_dict: Whether to return named fields rather than a tuple.
            attention_mask: 1 for tokens, 0 for padding: [B, T] for the segment or [B, M + T] for memory and segment.
                Padding may stand on either side; a padded row gives what the row alone gives, and what padding leaves
                in the memory is not attended to as a token.
            use_cache: Whether to return the memory.
            past_key_values: A cache of `new_cache` in the place of `mems`, for inference: the segment is added to it.

        Returns:
            `TransfoXLModelOutput`, or a tuple of its fields that are not None.

        Raises:
            ValueError: Neither or both of ids and embeddings, or shapes that do not belong together.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, and not both.")
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        use_cache = self.config.use_cache if use_cache is None else use_cache

        hidden = self.embedded(cast(Tensor, input_ids)) if inputs_embeds is None else inputs_embeds
        batch_size, query_length, _ = hidden.shape
        if query_length == 0:
            raise ValueError("The segment is empty: give at least one token in each row.")
        cache = past_key_values
        if cache is None:
            pasts = self._pasts(mems, hidden)
            memory_length = pasts[0].shape[1]
            memory_exists = self._memory_exists(pasts)
        else:
            self._prepare_cache(cache, mems, batch_size)
            pasts = None
            memory_length = cache.past_length
            memory_exists = cache.exists
        key_length = memory_length + query_length
        arrangement = self._arrangement(attention_mask, memory_exists, batch_size, memory_length, query_length)
        window = self.mem_len if self.same_length and self.mem_len > 0 else None
        visible = None
        if query_length > 1 or arrangement.exists is not None or (window is not None and key_length > window):
            visible = visible_positions(
                query_length, key_length, window=window, visible_keys=arrangement.exists, device=hidden.device
            )
        positions = self._positions(key_length, hidden, cache)
        head_masks = self._head_masks(head_mask)

        hidden = arrangement.segment(hidden)
        if self.attn_type != 2:
            hidden = self.drop(hidden)
        new_mems, hidden_states, attentions = [], [], []
        for i, layer in enumerate(self.layers):
            past = None
            if pasts is not None:
                past = pasts[i] if memory_length else None
                if self.attn_type == 3 or (self.attn_type == 2 and i == 0):
                    past = None if past is None else past + arrangement.memory_rows(positions[i], memory_length)
                    hidden = hidden + positions[i][memory_length:]
                if self.attn_type == 2 and i == 0:
                    hidden = self.drop(hidden)
                if use_cache and self.mem_len > 0:
                    context = hidden.detach() if past is None else torch.cat([past, hidden], dim=1).detach()
                    context = arrangement.context(context)
                    new_mems.append(memory.remember(context, query_length, self.mem_len, self.ext_len))
            if output_hidden_states:
                hidden_states.append(hidden)
            hidden, weights = layer(
                hidden,
                past,
                positions[i],
                visible,
                head_masks[i],
                output_attentions,
                None if cache is None else cache.windows[i],
                arrangement.context_order,
            )
            attentions.append(weights)
        if cache is not None:
            cache.advance(arrangement.exists, query_length)
        hidden = arrangement.restore_segment(self.drop_output(hidden))
        output = TransfoXLModelOutput(
            last_hidden_state=hidden,
            mems=new_mems or None,
            hidden_states=(*map(arrangement.restore_segment, hidden_states), hidden) if output_hidden_states else None,
            attentions=tuple(map(arrangement.restore_weights, attentions)) if output_attentions else None,
            past_key_values=cache,
        )
        return output if return_dict else output.to_tuple()

    def embedded(self, input_ids: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Return the embeddings that `forward` takes as `inputs_embeds`: [B, T] -> [B, T, D].

        Args:
            input_ids: Token ids.
            matrix: See `AdaptiveEmbedding.forward`.
        """
        embedded = self.word_emb(input_ids) if matrix is None else self.word_emb(input_ids, matrix)
        return self.drop_words(embedded, input_ids, self.word_emb.n_token)

    @property
    def has_cache(self) -> bool:
        """Whether `new_cache` has something to keep: a memory, and no positions in the hidden states."""
        return self.mem_len > 0 and self.attn_type in (0, 1)

    def new_cache(self, mems: Sequence[Tensor] | None = None) -> TransfoXLCache:
        """Return a cache for inference, to be given as `past_key_values`.

        Keys and values of past positions are then projected once rather than at every call. It holds what `mems` hold,
        or the beginning of a text, and belongs to the memory length, clamp and `same_length` of this moment.

        Args:
            mems: A memory to go on from, one tensor [M, B, D] for each layer.

        Raises:
            ValueError: The attention type adds positions to hidden states, so that keys and values do change.
        """
        if self.attn_type in (2, 3):
            raise ValueError(
                f"attn_type={self.attn_type} has no cache: its positions are part of the hidden states and change at "
                "every step, so pass mems instead."
            )
        beginning = None
        if self.config.initial_memory == "zeros":
            zero = next(self.word_emb.parameters()).new_zeros(1, 1, self.config.d_model)
            beginning = self._projected([zero] * self.n_layer)
        cache = TransfoXLCache(self.n_layer, max(0, self.mem_len - int(self.same_length)), beginning)
        if mems is not None:
            pasts = [layer.transpose(0, 1).to(self.dtype) for layer in mems]
            rows = self._projected(pasts)
            for window, (key, value) in zip(cache.windows, rows, strict=True):
                window.update(key, value)
            cache.advance(self._memory_exists(pasts), 0)
        return cache

    @torch.no_grad()
    def _projected(self, pasts: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values [B, H, M, K] of the memory of each layer [B, M, D]."""
        rows = []
        for layer, past in zip(self.layers, pasts, strict=True):
            rows.append(cast(JointProjectionAttention, layer.dec_attn).project_memory(past))
        return rows

    def _prepare_cache(self, cache: TransfoXLCache, mems: Sequence[Tensor] | None, batch_size: int) -> None:
        if mems is not None:
            raise ValueError("Give either mems or past_key_values: new_cache(mems) makes the one of the other.")
        if torch.is_grad_enabled():
            raise ValueError(
                "past_key_values holds no gradients: call the model under torch.no_grad(), or pass mems to train."
            )
        cache.begin(batch_size)

    def _pasts(self, mems: Sequence[Tensor] | None, hidden: Tensor) -> list[Tensor]:
        """Return the memory of each layer batch-first [B, M, D]."""
        batch_size, _, width = hidden.shape
        if mems is None:
            mems = self.init_mems(batch_size) or memory.begin(self.n_layer, 0, batch_size, width, like=hidden)
        shapes = {tuple(layer.shape) for layer in mems}
        if len(mems) != self.n_layer or shapes != {(mems[0].shape[0], batch_size, width)}:
            raise ValueError(
                f"mems holds {len(mems)} tensors of shapes {sorted(shapes)}, but this model and batch need "
                f"{self.n_layer} tensors of one shape (length, {batch_size}, {width}): pass the mems that this model "
                "returned for the same batch."
            )
        return [layer.transpose(0, 1).to(hidden) for layer in mems]

    def _memory_exists(self, pasts: list[Tensor]) -> Tensor | None:
        """Return which rows of the memory hold a token [B, M]; None if all may be attended to."""
        if self.config.initial_memory == "zeros" or pasts[0].shape[1] == 0:
            return None
        return memory.rows_with_tokens(pasts[-1])

    def _arrangement(
        self,
        attention_mask: Tensor | None,
        memory_exists: Tensor | None,
        batch_size: int,
        memory_length: int,
        query_length: int,
    ) -> Arrangement:
        if attention_mask is None:
            return arrange(None, memory_exists, memory_length, query_length)
        key_length = memory_length + query_length
        if attention_mask.shape not in ((batch_size, query_length), (batch_size, key_length)):
            raise ValueError(
                f"attention_mask has the shape {tuple(attention_mask.shape)}, but must be "
                f"{(batch_size, query_length)} for the segment or {(batch_size, key_length)} with the memory."
            )
        if attention_mask.shape[1] == key_length and memory_length:
            in_mask = attention_mask[:, :memory_length].bool()
            memory_exists = in_mask if memory_exists is None else memory_exists & in_mask
        return arrange(attention_mask[:, -query_length:].bool(), memory_exists, memory_length, query_length)

    def _positions(self, key_length: int, like: Tensor, cache: TransfoXLCache | None) -> list[Any]:
        """Return for each layer what its attention type takes in for positions.

        Encodings of distances [S, D] (attn_type 0, 2), or with a cache their projections [H, S, K]; learned tables (1);
        learned positions [S, D] (3).
        """
        if self.attn_type == 0 and cache is not None:
            # One more than there are keys, see `relative_attention`.
            if not cache.distance_keys or cache.distance_keys[0].shape[-1] <= key_length:
                attentions = (cast(TransformerXLAttention, layer.dec_attn) for layer in self.layers)
                cache.distance_keys = [
                    self.distance_keys(attention, key_length + 1, like).mT.contiguous() for attention in attentions
                ]
            first = cache.distance_keys[0].shape[-1] - key_length - 1
            return [distance_key.narrow(-1, first, key_length + 1).mT for distance_key in cache.distance_keys]
        if self.attn_type in (0, 2):
            encodings = self.pos_emb(key_length, self.clamp_len, like)
            return [self.drop(encodings) if self.attn_type == 0 else encodings] * self.n_layer
        tables = [rows_of_distances(table, key_length, self.clamp_len) for table in self.r_emb]
        if self.attn_type == 3:
            return [table.flatten(1) for table in tables]
        numbers = [rows_of_distances(table, key_length, self.clamp_len) for table in self.r_bias]
        return list(zip(tables, self.r_w_bias, numbers, strict=True))

    def distance_keys(self, attention: TransformerXLAttention, length: int, like: Tensor) -> Tensor:
        """Return a layer's projections of the distances `length - 1` down to 0, [H, S, K]; equal ones are made once."""
        num_different = min(length, self.clamp_len + 1) if self.clamp_len > 0 else length
        projected = attention.project_distances(self.pos_emb(num_different, self.clamp_len, like))
        return rows_of_distances(projected.transpose(0, 1), length).transpose(0, 1)

    def _head_masks(self, head_mask: Tensor | None) -> Sequence[Tensor | None]:
        if head_mask is None:
            return [None] * self.n_layer
        heads = self.config.n_head
        if head_mask.shape not in ((heads,), (self.n_layer, heads)):
            raise ValueError(
                f"head_mask has the shape {tuple(head_mask.shape)}, but must be {(heads,)} for all layers alike or "
                f"{(self.n_layer, heads)}."
            )
        return head_mask.to(self.dtype).expand(self.n_layer, heads).unbind()
