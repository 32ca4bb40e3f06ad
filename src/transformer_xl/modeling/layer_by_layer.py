"""A long segment read layer by layer, for inference: a single layer at a time has keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from transformer_xl.modeling import memory
from transformer_xl.modeling.attention import TransformerXLAttention
from transformer_xl.modeling.memory import ProjectedWindow
from transformer_xl.modeling.model import TransfoXLModel
from transformer_xl.ops.visibility import visible_positions

PIECE = ProjectedWindow.SLACK


@torch.no_grad()
def read_layer_by_layer(body: TransfoXLModel, input_ids: Tensor, mems: Sequence[Tensor]) -> Tensor:
    """Return the hidden states of the last layer [B, T, D], as `body(input_ids, mems=mems)` gives them.

    Beyond the memory little is held: of the segment, too, only a piece at a time passes through a layer. Each layer
    projects its memory anew, which costs little where the segment is long.

    Args:
        body: The model in evaluation mode, with distances (attn_type 0), a memory, and no `ext_len`.
        input_ids: A long segment [B, T].
        mems: The memory of each layer [M, B, D] with M = `mem_len`, zeros where a text has not begun. It is overwritten
            by the memory for the next segment.
    """
    hidden = body.embedded(input_ids)
    memory_length, query_length = body.mem_len, hidden.shape[1]
    exists = _exists(body, mems, query_length)
    seen = memory_length if body.same_length else memory_length + query_length
    window = ProjectedWindow(seen - 1)
    for layer, past in zip(body.layers, mems, strict=True):
        attention = cast(TransformerXLAttention, layer.dec_attn)
        window.rewind()
        window.update(*attention.project_memory(past.transpose(0, 1)))
        memory.overwrite(past, hidden)
        # One more than there are keys, see `relative_attention`.
        longest = min(seen - 1 + PIECE, memory_length + query_length) + 1
        distance_keys = body.distance_keys(attention, longest, hidden).mT.contiguous()
        stop = memory_length
        for piece in hidden.split(PIECE, dim=1):
            stop += piece.shape[1]
            key_length = window.past_length + piece.shape[1]
            visible = visible_positions(
                piece.shape[1],
                key_length,
                window=seen,
                visible_keys=None if exists is None else exists[:, stop - key_length : stop],
                device=hidden.device,
            )
            piece.copy_(layer(piece, None, distance_keys[..., -key_length - 1 :].mT, visible, window=window)[0])
    return hidden


def _exists(body: TransfoXLModel, mems: Sequence[Tensor], query_length: int) -> Tensor | None:
    """Return which positions of memory and segment may be attended to [B, M + T]; None for all."""
    if body.config.initial_memory == "zeros":
        return None
    exists = memory.rows_with_tokens(mems[-1].transpose(0, 1))
    return None if exists.all() else torch.nn.functional.pad(exists, (0, query_length), value=True)
