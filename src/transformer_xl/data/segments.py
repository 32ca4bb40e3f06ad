"""A text as parallel streams, cut into segments that follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer_xl.text.vocabulary import Ids

NOT_COUNTED = -100


@dataclass(frozen=True)
class Segment:
    """One step of every stream: `inputs` [B, T] and `targets` [B, T], the token after each input."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Segment:
        """The same segment on a device."""
        return Segment(self.inputs.to(device), self.targets.to(device))


class Segments:
    """A text of N tokens as B streams side by side, cut into segments of T tokens that continue each other.

    Stream b reads on in segment i + 1 where it stopped in segment i. Over all segments every token is a target exactly
    once, but for the very first of the text unless there is a token that stands before it. The last segment may be
    shorter; the streams differ in length by at most one token, and where a stream has ended, its last target is -100.

    Process p of P holds the streams p B / P to (p + 1) B / P, so that together they see what one process would.
    Segments are found by their index: the place in a text is one number, and a memory-mapped text stays on disk.

    Args:
        ids: The text [N].
        batch_size: Number of streams B.
        segment_length: Length T of a segment.
        process_index: Number p of this process.
        num_processes: Number P of processes.
        begin: A token that stands before the text, so that its first token is a target too; None for none.
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        segment_length: int,
        process_index: int = 0,
        num_processes: int = 1,
        begin: int | None = None,
    ) -> None:
        num_targets = len(ids) - (begin is None)
        if num_targets < batch_size:
            raise ValueError(
                f"the text has {len(ids):,} tokens, too few for a batch of {batch_size:,} streams: "
                "give a longer text or a smaller batch size"
            )
        if batch_size % num_processes:
            raise ValueError(
                f"a batch of {batch_size} streams cannot be shared evenly by {num_processes} processes: "
                f"give a batch size that is a multiple of {num_processes}"
            )
        self.ids = ids
        self.begin = begin
        self.segment_length = segment_length
        shortest, num_longer = divmod(num_targets, batch_size)
        self.stream_length = shortest + (num_longer > 0)
        rows_per_process = batch_size // num_processes
        rows = np.arange(process_index * rows_per_process, (process_index + 1) * rows_per_process)
        self._starts = rows * shortest + np.minimum(rows, num_longer)
        self._stops = self._starts + shortest + (rows < num_longer)

    def __len__(self) -> int:
        return -(-self.stream_length // self.segment_length)

    def __getitem__(self, index: int) -> Segment:
        if not 0 <= index < len(self):
            raise IndexError(f"segment {index} of {len(self)}")
        start = index * self.segment_length
        length = min(self.segment_length, self.stream_length - start)
        positions = self._starts[:, None] + start + np.arange(length + 1)
        tokens = torch.from_numpy(self._tokens_at(positions))
        ended = torch.from_numpy(positions[:, 1:] > self._stops[:, None])
        return Segment(tokens[:, :-1], tokens[:, 1:].masked_fill(ended, NOT_COUNTED))

    def _tokens_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the tokens at some positions, the one that stands before the text at 0 if there is one."""
        if self.begin is None:
            return self.ids[np.minimum(positions, len(self.ids) - 1)].astype(np.int64)
        tokens = self.ids[np.clip(positions - 1, 0, len(self.ids) - 1)].astype(np.int64)
        return np.where(positions == 0, self.begin, tokens)

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))
