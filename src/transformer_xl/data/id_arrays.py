"""Arrays of ids, of music or other events, in place of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from transformer_xl.data.encoding import Encoded

IDS_AT_ONCE = 1 << 22

Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class IdArrays:
    """The ids of `.npy` and `.safetensors` files, one behind the other, or those from `start` to `stop`.

    A file holds one document [N], or one in each row [documents, N]. In a safetensors file the ids are the only tensor,
    or the one called `ids`; a second one called `starts` says where in them documents start.
    """

    paths: Sequence[Path]
    start: int = 0
    stop: int | None = None

    @cached_property
    def arrays(self) -> list[tuple[Integers, list[int]]]:
        """The ids of each file, and the places at which documents start in them."""
        return [_ids_and_starts(path) for path in self.paths]

    def largest(self) -> int:
        """The largest id."""
        return max((int(ids.max()) for ids, _ in self.arrays if len(ids)), default=0)

    def held_out(self, share: float, at_document: bool) -> tuple[IdArrays, IdArrays]:
        """All but the last `share` of the ids, and these; cut where a document starts, if there is a border there."""
        total = sum(len(ids) for ids, _ in self.arrays)
        border = round(total * (1 - share))
        if at_document:
            border = min((start for start in self._starts() if start >= border), default=border)
        return IdArrays(self.paths, 0, border), IdArrays(self.paths, border)

    def encoded(self, vocab_size: int) -> Iterator[Encoded]:
        """The ids block by block.

        Raises:
            ValueError: An id does not belong to a vocabulary of this size.
        """
        begin = 0
        stop = np.inf if self.stop is None else self.stop
        all_starts = np.array(sorted({self.start, *self._starts()}))
        for path, (ids, _) in zip(self.paths, self.arrays, strict=True):
            for first in range(0, len(ids), IDS_AT_ONCE):
                block = ids[first : first + IDS_AT_ONCE]
                cut = slice(max(0, self.start - begin), int(np.clip(stop - begin, 0, len(block))))
                place = begin + cut.start
                begin += len(block)
                block = block[cut]
                if not len(block):
                    continue
                smallest, largest = int(block.min()), int(block.max())
                if smallest < 0 or largest >= vocab_size:
                    raise ValueError(
                        f"{str(path)!r} holds the id {smallest if smallest < 0 else largest}, but ids are 0 to "
                        f"{vocab_size - 1:,} here: number from 0 on, or give a larger vocab_size"
                    )
                inside = all_starts[(all_starts >= place) & (all_starts < place + len(block))]
                yield Encoded(np.asarray(block).astype(_smallest(vocab_size)), (inside - place).tolist(), 0, 0, 0, 0)

    def _starts(self) -> Iterator[int]:
        begin = 0
        for ids, starts in self.arrays:
            yield from (begin + start for start in starts)
            begin += len(ids)


def _smallest(vocab_size: int) -> np.dtype[Any]:
    return np.min_scalar_type(vocab_size - 1)


def _ids_and_starts(path: Path) -> tuple[Integers, list[int]]:
    try:
        tensors = {"ids": np.load(path, mmap_mode="r")} if path.suffix == ".npy" else _tensors(path)
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise ValueError(f"{str(path)!r} cannot be opened as an array ({error}): write the file again") from error
    if "ids" not in tensors:
        if len(tensors) != 1:
            names = ", ".join(sorted(tensors)) or "none"
            raise ValueError(f"{str(path)!r} holds several tensors ({names}): call the one with the ids 'ids'")
        tensors = {"ids": next(iter(tensors.values()))}
    ids = tensors["ids"]
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
        raise ValueError(
            f"{str(path)!r} holds {ids.dtype} of shape {list(ids.shape)}, but ids are whole numbers of shape [N], or "
            "[documents, N]"
        )
    if "starts" in tensors:
        starts = tensors["starts"].astype(np.int64)
        if starts.ndim != 1 or np.any(np.diff(starts) <= 0) or np.any((starts < 0) | (starts >= ids.size)):
            raise ValueError(f"the starts in {str(path)!r} are not ascending places among its {ids.size:,} ids")
    else:
        starts = np.arange(ids.shape[0]) * ids.shape[1] if ids.ndim == 2 else np.zeros(1, np.int64)
    return ids.reshape(-1), starts.tolist()


def _tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no mapping)
