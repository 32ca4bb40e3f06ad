"""How memory is begun and grown; no other file knows.

A memory is a list with one tensor [M, B, D] for each layer: the inputs of that layer at the last M positions, oldest
first, without gradient. Inside, the batch comes first. With `initial_memory="empty"` a row of zeros means that there is
no token.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from transformer_xl.pretrained_config import TransfoXLConfig


def begin(config: TransfoXLConfig, length: int, batch_size: Any, dtype: str) -> list[Any]:
    """Return the memory of each layer before the first segment, batch-first [B, M, D]; M is 0 if it starts empty."""
    length = length if config.initial_memory == "zeros" else 0
    return [ops.zeros((batch_size, length, config.d_model), dtype) for _ in range(config.n_layer)]


def given(config: TransfoXLConfig, mems: Any, dtype: str) -> list[Any]:
    """Return the memory of each layer batch-first [B, M, D].

    Raises:
        ValueError: There is not one memory for each layer.
    """
    if len(mems) != config.n_layer:
        raise ValueError(
            f"mems holds {len(mems)} tensors, but this model has {config.n_layer} layers: pass the mems that it "
            "returned."
        )
    return [ops.swapaxes(ops.cast(layer, dtype), 0, 1) for layer in mems]


def rows_with_tokens(past: Any) -> Any:
    """Return which rows of the deepest layer's memory, [B, M, D], hold a token [B, M]: those that are not all zero."""
    return ops.any(past != 0, axis=-1)


def remember(context: Any, query_length: Any, memory_length: int, extended_length: int) -> Any:
    """Return the memory of one layer for the next segment, [M', B, D], without gradient.

    Args:
        context: Memory and segment of the layer [B, S, D].
        query_length: Length T of the segment.
        memory_length: How many rows to keep at most.
        extended_length: How many of the last positions the next segment reads again.
    """
    if extended_length:
        extended_length = min(extended_length, query_length) if isinstance(query_length, int) else extended_length
        context = context[:, :-extended_length]
    return ops.swapaxes(ops.stop_gradient(context[:, -memory_length:]), 0, 1)
