"""Multi-head attention over memory and segment, in the four types of the paper's code."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.utils import logging

from transformer_xl.modeling.distances import sinusoids
from transformer_xl.modeling.dropout import Dropout, dropout_layer
from transformer_xl.modeling.linear_layers import called, is_bare
from transformer_xl.modeling.memory import ProjectedWindow
from transformer_xl.ops import flex
from transformer_xl.ops.relative_attention import relative_attention
from transformer_xl.pretrained_config import TransfoXLConfig

logger = logging.get_logger(__name__)


class DistanceTerms(NamedTuple):
    """The parts of the score that depend on distance or on neither side's content; see `ops.reference`."""

    distance_key: Tensor | None = None
    content_bias: Tensor | None = None
    position_bias: Tensor | None = None
    distance_bias: Tensor | None = None


class MultiHeadAttention(nn.Module):
    """What the attention types share: normalise, attend, project, add."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.config = config
        self.n_head = config.n_head
        self.d_head = config.d_head
        self.pre_lnorm = config.pre_lnorm
        self.o_net = nn.Linear(config.n_head * config.d_head, config.d_model, bias=False)
        self.drop_projected = dropout_layer(config.locked_attention_dropout, 0.0)
        self.drop = dropout_layer(config.locked_attention_dropout, config.dropout)
        self.dropatt = Dropout(config.dropatt)
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(
        self,
        hidden: Tensor,
        past: Tensor | None,
        positions: Any,
        visible: Tensor | None,
        head_mask: Tensor | None,
        need_weights: bool,
        window: ProjectedWindow | None = None,
        order: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the segment after attention [B, T, D], and the weights [B, H, T, S] or None.

        Args:
            hidden: The segment [B, T, D].
            past: The memory [B, M, D], or None for none; with a window there is none.
            positions: What `distance_terms` of this type takes.
            visible: Boolean [1 or B, 1, T, S], True where attention is allowed; None if a single query sees all.
            head_mask: [H] or None.
            need_weights: Whether to return the weights.
            window: Keys and values of past positions, to which the segment's are added; None if `past` has them.
            order: Positions of memory or window and segment in the order wanted [B, S], or None.
        """
        query, key, value = self.project(hidden, past)
        if self.training:
            query, key, value = (self.drop_projected(x) for x in (query, key, value))
        if window is not None:
            key, value = window.update(key, value, order)
        elif order is not None:
            by_key = order[:, None, :, None].expand_as(key)
            key, value = key.gather(2, by_key), value.gather(2, by_key)
        dropout = self.dropatt.p if self.training else 0.0
        read, weights = relative_attention(
            query,
            key,
            value,
            visible,
            **self.distance_terms(positions)._asdict(),
            dropout=dropout,
            head_mask=head_mask,
            need_weights=need_weights,
            flexible=query.shape[2] > 1 and self._is_flexible(query, dropout),
        )
        return self.add(hidden, read), weights

    def _is_flexible(self, query: Tensor, dropout: float) -> bool:
        """Return whether FlexAttention was asked for and can serve; says once why it cannot."""
        if self.config._attn_implementation != "flex_attention":
            return False
        obstacle = flex.obstacle(query, dropout)
        if obstacle:
            logger.warning_once(f"FlexAttention was asked for, but {obstacle}: another implementation takes its place.")
        return obstacle is None

    def add(self, hidden: Tensor, read: Tensor) -> Tensor:
        """Return the segment [B, T, D] with what its queries read [B, H, T, K] projected and added."""
        output = hidden + self.drop(called(self.o_net, read.transpose(1, 2).flatten(2)))
        return output if self.pre_lnorm else self.layer_norm(output)

    def project(self, hidden: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, H, T, K], keys and values [B, H, S, K] of memory [B, M, D] and segment [B, T, D]."""
        raise NotImplementedError

    def distance_terms(self, positions: Any) -> DistanceTerms:
        """Return the terms of the score that depend on distance."""
        raise NotImplementedError

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, S, H * K] -> [B, H, S, K]."""
        return x.view(x.shape[0], x.shape[1], self.n_head, self.d_head).transpose(1, 2)


class JointProjectionAttention(MultiHeadAttention):
    """Attention whose queries, keys and values come from one matrix (attn_type 0 and 1)."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.qkv_net = nn.Linear(config.d_model, 3 * config.n_head * config.d_head, bias=False)

    def project(self, hidden: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values."""
        if self.pre_lnorm:
            hidden = self.layer_norm(hidden)
        projected = called(self.qkv_net, hidden).view(*hidden.shape[:2], 3, self.n_head, self.d_head)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind()
        if past is None:
            return query, key, value
        past_key, past_value = self.project_memory(past)
        return query, _joined(past_key, key), _joined(past_value, value)

    def project_memory(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, H, M, K] of memory [B, M, D]; its queries are not computed if it can be helped."""
        if self.pre_lnorm:
            past = self.layer_norm(past)
        if is_bare(self.qkv_net, past):
            key, value = nn.functional.linear(past, self.qkv_net.weight[self.n_head * self.d_head :]).chunk(2, dim=-1)
        else:
            key, value = self.qkv_net(past).chunk(3, dim=-1)[1:]
        return self.split_heads(key), self.split_heads(value)


def _joined(past: Tensor, segment: Tensor) -> Tensor:
    """[B, H, M, K] and [B, H, T, K] -> [B, H, S, K], with heads first in memory as blocks of queries want it."""
    return torch.cat([past.transpose(0, 1), segment.transpose(0, 1)], dim=2).transpose(0, 1)


class TransformerXLAttention(JointProjectionAttention):
    """Attention of Transformer-XL: projected sinusoids of distances, content and position bias (attn_type 0)."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.r_net = nn.Linear(config.d_model, config.n_head * config.d_head, bias=False)
        self.r_w_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.r_r_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))

    def project_distances(self, encodings: Tensor) -> Tensor:
        """[S, D] -> [H, S, K]."""
        return self.r_net(encodings).unflatten(-1, (self.n_head, self.d_head)).transpose(0, 1)

    def biases(self, nearest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return content bias and position bias [H, K]; the encoding of distance 0, `nearest`, is not needed."""
        return self.r_w_bias, self.r_r_bias

    def distance_terms(self, positions: Tensor) -> DistanceTerms:
        """Return the terms for the encodings of distances [S, D], or for their projections [H, S, K]."""
        is_projected = positions.dim() == 3
        distance_key = positions if is_projected else self.project_distances(positions)
        content_bias, position_bias = self.biases(None if is_projected else positions[-1])
        return DistanceTerms(
            distance_key, content_bias.to(distance_key.dtype), position_bias.to(distance_key.dtype), None
        )


class SharedProjectionAttention(TransformerXLAttention):
    """Attention of Transformer-XL in which `qkv_net` projects the distances too, so that nothing else is learned.

    The key of a distance is its encoding times the key matrix; both biases are the encoding of distance 0 times the
    query matrix. Source: the Penn Treebank model of the paper's first author (`share_position_projection`).
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        JointProjectionAttention.__init__(self, config)

    def project_distances(self, encodings: Tensor) -> Tensor:
        """[S, D] -> [H, S, K]."""
        key = self.qkv_net(encodings).chunk(3, dim=-1)[1]
        return cast(Tensor, key).unflatten(-1, (self.n_head, self.d_head)).transpose(0, 1)

    def biases(self, nearest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the one bias [H, K] twice, of the encoding of distance 0 [D], which training may have dropped from."""
        if nearest is None:
            nearest = sinusoids(1, self.config.d_model)[0].to(self.o_net.weight)
        bias = self.qkv_net(nearest).chunk(3, dim=-1)[0].unflatten(-1, (self.n_head, self.d_head))
        return bias, bias


class ShawAttention(JointProjectionAttention):
    """Attention with a learned vector and number for each distance (Shaw et al. 2018; attn_type 1)."""

    def distance_terms(self, positions: tuple[Tensor, Tensor, Tensor]) -> DistanceTerms:
        """Return the terms for the vectors [S, H, K] of the distances, the content bias [H, K] and numbers [S, H]."""
        vectors, content_bias, numbers = positions
        return DistanceTerms(vectors.transpose(0, 1), content_bias, None, numbers.T)


class AbsoluteAttention(MultiHeadAttention):
    """Attention that knows no distance: positions were added to the hidden states (attn_type 2 and 3).

    With `pre_lnorm` keys and values are normalised but queries are not, as in the authors' code.
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.q_net = nn.Linear(config.d_model, config.n_head * config.d_head, bias=False)
        self.kv_net = nn.Linear(config.d_model, 2 * config.n_head * config.d_head, bias=False)

    def project(self, hidden: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values."""
        context = hidden if past is None else torch.cat([past, hidden], dim=1)
        key, value = self.kv_net(self.layer_norm(context) if self.pre_lnorm else context).chunk(2, dim=-1)
        return self.split_heads(self.q_net(hidden)), self.split_heads(key), self.split_heads(value)

    def distance_terms(self, positions: None) -> DistanceTerms:
        """Return no terms."""
        return DistanceTerms()
