"""How memory is laid out, begun, grown, reset, reordered and cached; no other file knows.

A memory is a list with one tensor [M, B, D] for each layer: the inputs of that layer at the last M positions, oldest
first, without gradient. With `initial_memory="empty"` a row of zeros means that there is no token: it is never attended
to. With "zeros" such rows are attended to, as transformers 4 does.

Example:
    >>> out = model(ids)
    >>> mems = reset(out.mems, torch.tensor([True, False]))  # the first text has ended, the second goes on
    >>> out = model(next_ids, mems=mems)

For inference, where the weights stand still, a `TransfoXLCache` holds the same positions as projected keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Memory = list[Tensor]


def reset(mems: Sequence[Tensor], rows: Tensor) -> Memory:
    """Return the memory with the chosen rows of the batch as at the very beginning, in all layers.

    Args:
        mems: One tensor [M, B, D] for each layer.
        rows: Boolean [B], True for the rows to reset.

    Raises:
        ValueError: `rows` is not one boolean for each row of the batch.
    """
    batch_size = mems[0].shape[1]
    if rows.dtype != torch.bool or rows.shape != (batch_size,):
        raise ValueError(
            f"rows is {rows.dtype} of shape {tuple(rows.shape)}, but the memory has {batch_size} rows: give a boolean "
            f"tensor of shape ({batch_size},)."
        )
    return [layer.masked_fill(rows.to(layer.device)[None, :, None], 0) for layer in mems]


def reorder(mems: Sequence[Tensor], index: Tensor) -> Memory:
    """Return the memory with its rows taken in the order of `index` [B']; beams and resampled batches need it."""
    return [layer.index_select(1, index.to(layer.device)) for layer in mems]


def detach(mems: Sequence[Tensor]) -> Memory:
    """Return the memory cut off from the graph that computed it."""
    return [layer.detach() for layer in mems]


def move(mems: Sequence[Tensor], device: torch.device | str, dtype: torch.dtype | None = None) -> Memory:
    """Return the memory on `device`, and in `dtype` if one is given."""
    return [layer.to(device=device, dtype=dtype) for layer in mems]


def begin(num_layers: int, length: int, batch_size: int, width: int, like: Tensor) -> Memory:
    """Return `length` rows of zeros for each layer [M, B, D], in the dtype and on the device of `like`."""
    return [like.new_zeros(length, batch_size, width) for _ in range(num_layers)]


def rows_with_tokens(past: Tensor) -> Tensor:
    """Return which rows of the deepest layer's memory, [B, M, D], hold a token [B, M]: those that are not all zero.

    The deepest layer is asked because its inputs have been through all the others, so that no real one is zero.
    """
    return (past != 0).any(dim=-1)


def remember(context: Tensor, query_length: int, memory_length: int, extended_length: int) -> Tensor:
    """Return the memory of one layer for the next segment.

    Args:
        context: Memory and segment of the layer [B, S, D].
        query_length: Length T of the segment.
        memory_length: How many rows to keep at most.
        extended_length: How many of the last positions the next segment reads again.

    Returns:
        The last `memory_length` rows that the next segment does not read again, [M', B, D], without gradient.

    Source: the comment on `ext_len` in the authors' PyTorch code (`_update_mems`).
    """
    stop = context.shape[1] - min(extended_length, query_length)
    kept = context[:, max(0, stop - memory_length) : stop]
    return kept.detach().transpose(0, 1).clone(memory_format=torch.contiguous_format)


def overwrite(past: Tensor, segment: Tensor) -> None:
    """Put the inputs of a segment [B, T, D] into the memory of its layer [M, B, D] in the place of the oldest rows."""
    length = past.shape[0]
    kept = max(0, length - segment.shape[1])
    past[:kept] = past[length - kept :].clone()
    past[kept:] = segment[:, -length:].transpose(0, 1)


class ProjectedWindow(CacheLayerMixin):
    """Keys and values of one layer's last positions, projected once and read at every step.

    Positions enter the attention through distances alone, so that these projections stay exact while the window slides.
    The buffers are longer than the window: a step writes at their end and reads a view, and only when they are full is
    the window moved to the front.

    Args:
        length: Number W of past positions that the next segment's first query may attend to.
    """

    is_croppable = True
    supports_early_init = False
    SLACK = 256

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.record_past = False
        self.first = self.stop = 0
        self.keys: Tensor
        self.values: Tensor

    @property
    def past_length(self) -> int:
        """Number of past positions in reach."""
        return min(self.stop - self.first, self.length)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for windows of keys and values [B, H, any, K]."""
        batch_size, num_heads, added, head_size = key_states.shape
        capacity = max(self.length, added) + self.SLACK
        self.keys = key_states.new_zeros(batch_size, num_heads, head_size, capacity)
        self.values = value_states.new_zeros(batch_size, num_heads, capacity, head_size)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, order: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add a segment and return all keys and values that its queries may meet.

        Args:
            key_states: [B, H, T, K].
            value_states: [B, H, T, K].
            order: Positions of window and segment in the order wanted [B, S] (see `padding.Arrangement`), or None.
            kwargs: What other caches of transformers take; nothing here.

        Returns:
            Keys and values [B, H, S, K] with S = past length + T.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        added = key_states.shape[2]
        visible = self.past_length + added
        self._make_room(added)
        self.keys.narrow(3, self.stop, added).copy_(key_states.mT)
        self.values.narrow(2, self.stop, added).copy_(value_states)
        self.stop += added
        keys = self.keys.narrow(3, self.stop - visible, visible).mT
        values = self.values.narrow(2, self.stop - visible, visible)
        if order is not None:
            by_key = order[:, None, :, None].expand_as(keys)
            keys.copy_(keys.gather(2, by_key))
            values.copy_(values.gather(2, by_key))
        return keys, values

    def _make_room(self, added: int) -> None:
        capacity = self.keys.shape[-1]
        if self.stop + added <= capacity:
            return
        kept = self.stop - self.first if self.record_past else self.past_length
        moved = self.stop - kept
        keys, values = self.keys, self.values
        if kept + added > capacity:
            capacity = kept + added + self.SLACK
            self.keys = keys.new_zeros(*keys.shape[:-1], capacity)
            self.values = values.new_zeros(*values.shape[:2], capacity, values.shape[-1])
            pieces = [(0, kept)]
        else:
            # Within a buffer no piece may reach into the place that it comes from.
            pieces = [(start, min(start + moved, kept)) for start in range(0, kept, moved)]
        for start, stop in pieces:
            self.keys[..., start:stop] = keys[..., start + moved : stop + moved]
            self.values[:, :, start:stop] = values[:, :, start + moved : stop + moved]
        self.first, self.stop = 0, kept

    def activate_past_recording(self) -> None:
        """Forget nothing until `crop` is called, so that any number of positions can be taken back."""
        self.record_past = True

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last `-tokens_to_remove` positions (0 or a negative number)."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}) is not possible: give the number of positions negated.")
        if tokens_to_remove and not self.record_past:
            raise ValueError(f"crop({tokens_to_remove}) needs activate_past_recording() before positions are added.")
        self.stop += tokens_to_remove
        if self.stop < self.first:
            raise ValueError(f"crop({tokens_to_remove}) would take back more positions than the window has recorded.")
        self.first = max(self.first, self.stop - self.length)

    def rewind(self) -> None:
        """Forget what was added, but keep the room for it."""
        self.first = self.stop = 0

    def reset(self) -> None:
        """Forget everything, the beginning included."""
        self.rewind()
        self.is_initialized = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows of the batch in the order of `beam_idx`."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        self.keys = self.keys.repeat_interleave(repeats, dim=0)
        self.values = self.values.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` of the batch."""
        self.keys = self.keys[indices.to(self.keys.device)]
        self.values = self.values[indices.to(self.values.device)]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys that a segment of `query_length` meets, and 0."""
        return self.past_length + query_length, 0

    def reset_rows(self, rows: Tensor, key_row: Tensor, value_row: Tensor) -> None:
        """Put one key and value [1, H, 1, K] at every position of the chosen rows of the batch [B]."""
        chosen = rows.to(self.keys.device)[:, None, None, None]
        self.keys = torch.where(chosen, key_row.mT, self.keys)
        self.values = torch.where(chosen, value_row, self.values)

    def get_seq_length(self) -> int:
        """Return the number of past positions in reach."""
        return self.past_length

    def get_max_length(self) -> int:
        """Return -1: a text may go on for ever."""
        return -1


class TransfoXLCache(Cache):
    """The memory of all layers as projected keys and values: what `generate()` and scoring carry along.

    A cache is made by `TransfoXLModel.new_cache` and filled by the model; it belongs to that model, to its weights and
    to the memory length, clamp and window that it had.

    Args:
        num_layers: Number of layers L.
        length: Number W of past positions in reach of the next segment's first query.
        beginning: The key and value [1, H, 1, K] of each layer that a text begins with W of, or None if it begins with
            nothing.
    """

    def __init__(self, num_layers: int, length: int, beginning: list[tuple[Tensor, Tensor]] | None) -> None:
        self.windows = [ProjectedWindow(length) for _ in range(num_layers)]
        super().__init__(layers=[*self.windows])
        self.beginning = beginning
        self.distance_keys: list[Tensor] = []
        self.num_seen = 0
        self._exists: Tensor | None = None

    @property
    def past_length(self) -> int:
        """Number of past positions in reach, those of the initial memory included."""
        return self.windows[0].past_length

    @property
    def exists(self) -> Tensor | None:
        """Which of the past positions may be attended to [B, past length]; None for all."""
        return None if self._exists is None else self._exists[:, self._exists.shape[1] - self.past_length :]

    def begin(self, batch_size: int) -> None:
        """Fill the windows with the initial memory if they hold nothing yet."""
        if self.beginning is None or self.windows[0].is_initialized:
            return
        for window, (key, value) in zip(self.windows, self.beginning, strict=True):
            shape = (batch_size, -1, window.length, -1)
            window.update(key.expand(shape), value.expand(shape))

    def advance(self, exists: Tensor | None, num_added: int) -> None:
        """Note that all layers have got another segment.

        Args:
            exists: Which positions of window and segment may be attended to [B, S]; None for all.
            num_added: Length T of the segment, padding included.
        """
        self.num_seen += num_added
        if exists is None:
            return
        recorded = self.windows[0].stop - self.windows[0].first if self.windows[0].record_past else self.past_length
        if self._exists is not None:
            older = self._exists[:, : max(0, self._exists.shape[1] - exists.shape[1] + num_added)]
            exists = torch.cat([older, exists], dim=1)
        self._exists = exists[:, -recorded:]

    def clone(self) -> TransfoXLCache:
        """Return a cache with the same past that goes its own way."""
        other = TransfoXLCache(len(self.windows), self.windows[0].length, self.beginning)
        other.load_state(self.state())
        other.distance_keys = self.distance_keys
        return other

    def state(self) -> dict[str, Tensor]:
        """Return all that is kept of the past, by name.

        The buffers are whole, as they lie in memory, so that what goes on from them repeats to the bit.
        """
        state = {"num_seen": torch.tensor(self.num_seen)}
        if self._exists is not None:
            state["exists"] = self._exists.contiguous()
        for i, window in enumerate(self.windows):
            if window.is_initialized:
                state[f"{i}.place"] = torch.tensor([window.first, window.stop])
                state[f"{i}.keys"] = window.keys
                state[f"{i}.values"] = window.values
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up the past that `state()` of a cache of the same model returned; the tensors are copied."""
        self.num_seen = int(state["num_seen"])
        self._exists = state["exists"].clone() if "exists" in state else None
        for i, window in enumerate(self.windows):
            if f"{i}.place" in state:
                window.first, window.stop = state[f"{i}.place"].tolist()
                window.keys, window.values = state[f"{i}.keys"].clone(), state[f"{i}.values"].clone()
                window.is_initialized = True

    def reset_rows(self, rows: Tensor) -> None:
        """Bring the chosen rows of the batch, boolean [B], back to the beginning of a text."""
        if not self.windows[0].is_initialized:
            return
        if self.beginning is not None:
            for window, (key, value) in zip(self.windows, self.beginning, strict=True):
                window.reset_rows(rows, key, value)
            return
        if self._exists is None:
            self._exists = torch.ones(rows.shape[0], self.past_length, dtype=torch.bool, device=rows.device)
        self._exists = self._exists & ~rows.to(self._exists.device)[:, None]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of positions read so far, padding included."""
        return self.num_seen

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last `-tokens_to_remove` positions."""
        super().crop(tokens_to_remove)
        self.num_seen += tokens_to_remove
        if self._exists is not None and tokens_to_remove:
            self._exists = self._exists[:, :tokens_to_remove]

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._exists = None
        self.num_seen = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows of the batch in the order of `beam_idx`."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        super().batch_repeat_interleave(repeats)
        if self._exists is not None:
            self._exists = self._exists.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` of the batch."""
        super().batch_select_indices(indices)
        if self._exists is not None:
            self._exists = self._exists[indices.to(self._exists.device)]
