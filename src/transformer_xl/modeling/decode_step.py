"""One token in, the next token's log-probabilities out, in fixed shapes: for torch.compile, torch.export and ONNX."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from transformer_xl.modeling.attention import TransformerXLAttention
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.layer import DecoderLayer
from transformer_xl.modeling.memory import TransfoXLCache


class Ring(NamedTuple):
    """The past in R = W + 1 slots, of which each new token takes the oldest.

    Attributes:
        keys: [B, H, R, K] for each layer.
        values: [B, H, R, K] for each layer.
        exists: Boolean [B, R], False where a slot holds nothing that may be attended to.
        place: The slot that the next token takes, a whole number in a tensor [1].
    """

    keys: list[Tensor]
    values: list[Tensor]
    exists: Tensor
    place: Tensor


class DecodeStep(nn.Module):
    """The decode step of a model with distances (attn_type 0): no shape depends on what was read.

    It belongs to the memory length, clamp and window that the model has now.

    Args:
        model: The model, which is put into evaluation mode.

    Raises:
        ValueError: The model has no memory, or attention of another type.

    Example:
        >>> step = DecodeStep(model)
        >>> ring = step.ring(cache)                       # a cache that has read the prompt
        >>> fast = torch.compile(step, dynamic=False)     # compiled once, never again
        >>> scores = fast(token, *ring)                   # [B, V]; the token is now part of the ring
    """

    distance_keys: Tensor

    def __init__(self, model: TransfoXLLMHeadModel) -> None:
        super().__init__()
        body = model.transformer
        if body.attn_type != 0 or body.mem_len == 0:
            raise ValueError(
                f"a decode step needs attn_type=0 and a memory, but the model has attn_type={body.attn_type} and "
                f"mem_len={body.mem_len}: generate with the model itself"
            )
        self.model = model
        self.train(False)
        self.num_slots = model.new_cache().windows[0].length + 1
        with torch.no_grad():
            encodings = body.pos_emb(self.num_slots, body.clamp_len, next(body.word_emb.parameters())).flip(0)
            projected = [attention.project_distances(encodings) for attention in self._attentions()]
        self.register_buffer("distance_keys", torch.stack(projected), persistent=False)

    def ring(self, cache: TransfoXLCache) -> Ring:
        """Return the past of a cache, which stays as it is."""
        length = cache.past_length
        example = cache.windows[0].values
        batch_size, num_heads, _, head_size = example.shape
        slots = (batch_size, num_heads, self.num_slots, head_size)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for window in cache.windows:
            past = slice(window.stop - length, window.stop)
            for buffers, rows in ((keys, window.keys[..., past].mT), (values, window.values[:, :, past])):
                buffer = example.new_zeros(slots)
                buffer[:, :, :length] = rows
                buffers.append(buffer)
        exists = torch.zeros(batch_size, self.num_slots, dtype=torch.bool, device=example.device)
        exists[:, :length] = True if cache.exists is None else cache.exists
        return Ring(keys, values, exists, torch.tensor([length % self.num_slots], device=example.device))

    @torch.no_grad()
    def forward(self, token: Tensor, keys: list[Tensor], values: list[Tensor], exists: Tensor, place: Tensor) -> Tensor:
        """Return the log-probabilities [B, V] of the token after `token` [B], which is added to the ring in place."""
        hidden = self.model.transformer.word_emb(token[:, None])
        exists.index_fill_(1, place, True)
        slots = torch.arange(self.num_slots, device=token.device)
        distances = (place - slots) % self.num_slots
        for layer, attention, key, value, distance_key in zip(
            self._layers(), self._attentions(), keys, values, self.distance_keys, strict=True
        ):
            query, new_key, new_value = attention.project(hidden)
            key.index_copy_(2, place, new_key)
            value.index_copy_(2, place, new_value)
            content_bias, position_bias = attention.biases()
            scores = (query + content_bias[:, None]) @ key.mT
            scores = scores + ((query + position_bias[:, None]) @ distance_key.mT).index_select(-1, distances)
            scores = (scores.float() / math.sqrt(attention.d_head)).masked_fill(~exists[:, None, None], float("-inf"))
            read = torch.softmax(scores, dim=-1).to(value.dtype) @ value
            hidden = layer.pos_ff(attention.add(hidden, read))
        place.copy_((place + 1) % self.num_slots)
        return self.model.crit.log_prob(hidden[:, 0])

    def _layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.model.transformer.layers]

    def _attentions(self) -> list[TransformerXLAttention]:
        return [cast(TransformerXLAttention, layer.dec_attn) for layer in self._layers()]


class ExportableStep(nn.Module):
    """A decode step that changes no argument and returns the ring after it, as exported programs want it.

    Inputs and outputs are flat: token, exists, place, then the keys and the values of all layers; out comes the
    log-probabilities and all of these again, without the token.
    """

    def __init__(self, step: DecodeStep) -> None:
        super().__init__()
        self.step = step
        self.train(False)

    def forward(self, token: Tensor, exists: Tensor, place: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Return the log-probabilities [B, V] and the ring after the token."""
        exists, place = exists.clone(), place.clone()
        copies = [tensor.clone() for tensor in past]
        half = len(copies) // 2
        scores = self.step(token, copies[:half], copies[half:], exists, place)
        return scores, exists, place, *copies
