"""A text as parallel streams, cut into segments that follow each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer_xl.data.corpus import Corpus
from transformer_xl.data.datasets import Split
from transformer_xl.data.text_settings import TextSettings
from transformer_xl.text.vocabulary import Ids

NOT_COUNTED = -100

# How `varying_lengths` draws, as the authors' `get_varlen_iter` does.
SHARE_OF_FULL_LENGTHS = 0.95
DEVIATION = 5
MOST_DEVIATIONS = 3
SHORTEST = 5

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """One step of every stream: `inputs` [B, T] and `targets` [B, T], the token after each input.

    `resets` [B] is true for the rows whose memory starts anew before this segment; None where none does. Before the
    first segment of an epoch no row has a memory. Where nothing is to be predicted, the target is -100.
    """

    inputs: Tensor
    targets: Tensor
    resets: Tensor | None = None

    def to(self, device: torch.device) -> Segment:
        """The same segment on a device."""
        resets = None if self.resets is None else self.resets.to(device)
        return Segment(self.inputs.to(device), self.targets.to(device), resets)


class SegmentStream(ABC):
    """The segments of one epoch, found by their index: the place in the data is two numbers, (epoch, segment).

    Process p of P holds the rows p B / P to (p + 1) B / P, so that together they see what one process would. A
    memory-mapped text stays on disk.
    """

    def __init__(self, ids: Ids, begin: int | None, batch_size: int, process_index: int, num_processes: int) -> None:
        if batch_size % num_processes:
            raise ValueError(
                f"a batch of {batch_size} streams cannot be shared evenly by {num_processes} processes: "
                f"give a batch size that is a multiple of {num_processes}"
            )
        self.ids = ids
        self.begin = begin
        rows_per_process = batch_size // num_processes
        self._rows = np.arange(process_index * rows_per_process, (process_index + 1) * rows_per_process)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _segment(self, index: int) -> Segment: ...

    def __getitem__(self, index: int) -> Segment:
        if not 0 <= index < len(self):
            raise IndexError(f"segment {index} of {len(self)}")
        return self._segment(index)

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))

    def _tokens(self, positions: Positions) -> Tensor:
        """The tokens at the positions of the text; `begin` stands at -1, and what is behind the end is never used."""
        tokens = np.asarray(self.ids[np.clip(positions, 0, len(self.ids) - 1)]).astype(np.int64)
        if self.begin is not None:
            tokens[positions < 0] = self.begin
        return torch.from_numpy(tokens)


class Segments(SegmentStream):
    """A text of N tokens as B streams side by side, cut into segments of T tokens that continue each other.

    Stream b reads on in segment i + 1 where it stopped in segment i. Over all segments every token but the very
    first of the text is a target exactly once, and with `begin` that one too. The last segment may be shorter; the
    streams differ in length by at most one token, and where a stream has ended, its last target is -100.

    Args:
        ids: The text.
        batch_size: Number B of streams of all processes together.
        segment_length: Number T of tokens that a stream advances in one segment.
        process_index: Number p of this process.
        num_processes: Number P of processes.
        begin: A token that is read before the text, so that the text's first token is predicted too.
        ext_len: So many tokens before each segment are read again, with targets -100, by a model with that `ext_len`.
        varlen: (seed, epoch) from which the lengths of the segments are drawn, around T; None for equal ones.
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        segment_length: int,
        process_index: int = 0,
        num_processes: int = 1,
        *,
        begin: int | None = None,
        ext_len: int = 0,
        varlen: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(ids, begin, batch_size, process_index, num_processes)
        num_targets = len(ids) - (begin is None)
        if num_targets < batch_size:
            raise ValueError(
                f"the text has {len(ids):,} tokens, too few for a batch of {batch_size:,} streams: "
                "give a longer text or a smaller batch size"
            )
        self.segment_length = segment_length
        self.ext_len = ext_len
        starts = _even_shares(num_targets, batch_size)
        self.stream_length = int(np.diff(starts).max())
        first_input = -1 if begin is not None else 0
        self._starts = starts[self._rows] + first_input
        self._stops = starts[self._rows + 1] + first_input
        if varlen is None:
            self._borders = np.append(np.arange(0, self.stream_length, segment_length), self.stream_length)
        else:
            self._borders = _varying_borders(self.stream_length, segment_length, np.random.default_rng(varlen))

    def __len__(self) -> int:
        return len(self._borders) - 1

    def _segment(self, index: int) -> Segment:
        start, stop = self._borders[index : index + 2]
        first = max(0, start - self.ext_len)
        positions = self._starts[:, None] + np.arange(first, stop + 1)
        tokens = self._tokens(positions)
        not_counted = positions[:, 1:] > self._stops[:, None]
        not_counted[:, : start - first] = True
        return Segment(tokens[:, :-1], tokens[:, 1:].masked_fill(torch.from_numpy(not_counted), NOT_COUNTED))


class _Pieces(SegmentStream):
    """A text of sentences or documents, which start at the positions `starts`, in their order or shuffled.

    `begin` is read before each of them; without it the first token of each is read but not predicted.
    """

    def __init__(
        self,
        ids: Ids,
        starts: npt.NDArray[np.integer[Any]],
        batch_size: int,
        segment_length: int,
        process_index: int,
        num_processes: int,
        begin: int | None,
        shuffle: tuple[int, int] | None,
    ) -> None:
        super().__init__(ids, begin, batch_size, process_index, num_processes)
        self.segment_length = segment_length
        self._starts = np.asarray(starts).astype(np.int64)
        self._num_targets = (np.diff(self._starts, append=len(ids)) - (begin is None)).clip(0)
        if shuffle is not None:
            order = np.random.default_rng(shuffle).permutation(len(self._starts))
            self._starts, self._num_targets = self._starts[order], self._num_targets[order]
        self._first_input = -1 if begin is not None else 0
        if self._num_targets.sum() < batch_size:
            raise ValueError(
                f"the text has {len(ids):,} tokens in {len(self._starts):,} pieces, too few for a batch of "
                f"{batch_size:,} streams: give a longer text or a smaller batch size"
            )

    def _inputs_and_targets(self, pieces: Positions, places: Positions) -> tuple[Tensor, Tensor]:
        """The tokens at the places of the pieces, counted in targets, and those after them."""
        targets = self._starts[pieces] + places + self._first_input + 1
        before = targets - 1
        if self.begin is not None:
            before[places == 0] = -1
        return self._tokens(before), self._tokens(targets)


class Sentences(_Pieces):
    """Sentences one behind the other as B streams that continue, cut into segments of T tokens; memory is kept.

    Over all segments each token is a target exactly once; of a sentence without `begin`, its first token is not.

    Args:
        ids: The text.
        starts: Where its sentences begin, ascending.
        batch_size: Number B of streams of all processes together.
        segment_length: Number T of tokens that a stream advances in one segment.
        process_index: Number p of this process.
        num_processes: Number P of processes.
        begin: A token that is read before each sentence, such as `<S>`.
        shuffle: (seed, epoch) from which the order of the sentences is drawn; None for the order of the text.
    """

    def __init__(
        self,
        ids: Ids,
        starts: npt.NDArray[np.integer[Any]],
        batch_size: int,
        segment_length: int,
        process_index: int = 0,
        num_processes: int = 1,
        *,
        begin: int | None = None,
        shuffle: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(ids, starts, batch_size, segment_length, process_index, num_processes, begin, shuffle)
        self._ends = np.cumsum(self._num_targets)
        borders = _even_shares(int(self._ends[-1]), batch_size)
        self.stream_length = int(np.diff(borders).max())
        self._row_starts, self._row_stops = borders[self._rows], borders[self._rows + 1]

    def __len__(self) -> int:
        return -(-self.stream_length // self.segment_length)

    def _segment(self, index: int) -> Segment:
        start = index * self.segment_length
        stop = min(start + self.segment_length, self.stream_length)
        positions = self._row_starts[:, None] + np.arange(start, stop)
        ended = positions >= self._row_stops[:, None]
        positions = np.minimum(positions, self._ends[-1] - 1)
        pieces = np.searchsorted(self._ends, positions, side="right")
        places = positions - (self._ends - self._num_targets)[pieces]
        inputs, targets = self._inputs_and_targets(pieces, places)
        return Segment(inputs, targets.masked_fill(torch.from_numpy(ended), NOT_COUNTED))


class Documents(_Pieces):
    """Documents, each from the beginning of a segment on and with a memory of its own, B of them side by side.

    A document is read in segments of T tokens that continue each other; the last one is filled up at the right, with
    targets -100. Where a row starts a document, its memory is reset. Over all segments each token is a target
    exactly once; of a document without `begin`, its first token is not.

    Args:
        ids: The text.
        starts: Where its documents begin, ascending.
        batch_size: Number B of rows of all processes together.
        segment_length: Number T of tokens of a segment.
        process_index: Number p of this process.
        num_processes: Number P of processes.
        begin: A token that is read before each document.
        shuffle: (seed, epoch) from which the order of the documents is drawn; None for the order of the text.
    """

    def __init__(
        self,
        ids: Ids,
        starts: npt.NDArray[np.integer[Any]],
        batch_size: int,
        segment_length: int,
        process_index: int = 0,
        num_processes: int = 1,
        *,
        begin: int | None = None,
        shuffle: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(ids, starts, batch_size, segment_length, process_index, num_processes, begin, shuffle)
        # A document belongs to the row in whose even share of all segments it begins: rows are of similar length.
        num_segments = -(-self._num_targets // segment_length)
        self._ends = np.cumsum(num_segments)
        self._begins = self._ends - num_segments
        first_documents = np.searchsorted(self._begins, _even_shares(int(self._ends[-1]), batch_size))
        first_documents[-1] = len(self._ends)
        row_starts = np.append(0, self._ends)[first_documents]
        self._length = int(np.diff(row_starts).max())
        self._row_starts, self._row_stops = row_starts[self._rows], row_starts[self._rows + 1]

    def __len__(self) -> int:
        return self._length

    def _segment(self, index: int) -> Segment:
        places = self._row_starts + index
        ended = places >= self._row_stops
        documents = np.searchsorted(self._ends, np.minimum(places, self._ends[-1] - 1), side="right")
        segments = np.where(ended, 0, places - self._begins[documents])
        targets = segments[:, None] * self.segment_length + np.arange(self.segment_length)
        not_counted = (targets >= self._num_targets[documents][:, None]) | ended[:, None]
        inputs, tokens = self._inputs_and_targets(np.broadcast_to(documents[:, None], targets.shape), targets)
        return Segment(
            inputs,
            tokens.masked_fill(torch.from_numpy(not_counted), NOT_COUNTED),
            torch.from_numpy(segments == 0),
        )


def _even_shares(number: int, shares: int) -> Positions:
    """The borders, from 0 to `number`, of shares that differ by at most one; the longer ones come first."""
    shortest, num_longer = divmod(number, shares)
    return np.arange(shares + 1) * shortest + np.minimum(np.arange(shares + 1), num_longer)


def _varying_borders(stream_length: int, segment_length: int, random: np.random.Generator) -> Positions:
    """Borders of segments whose lengths vary around T, one in twenty around half of it."""
    # The shortest length that can be drawn decides how many are enough.
    number = -(-stream_length // min(SHORTEST, segment_length))
    means = np.where(random.random(number) < SHARE_OF_FULL_LENGTHS, segment_length, segment_length / 2)
    lengths = random.normal(means, DEVIATION).astype(np.int64)
    borders = np.cumsum(lengths.clip(min(SHORTEST, segment_length), segment_length + MOST_DEVIATIONS * DEVIATION))
    return np.concatenate([[0], borders[borders < stream_length], [stream_length]])


def segments_of(
    corpus: Corpus,
    split: Split,
    settings: TextSettings,
    batch_size: int,
    segment_length: int,
    *,
    seed: int,
    epoch: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> SegmentStream:
    """The segments of one epoch of a split, in the kind of stream that the corpus was encoded for.

    The order of sentences and documents and varying lengths are drawn from the seed and the epoch.

    Raises:
        ValueError: The split is too short for the batch, or processes cannot share the batch evenly.
    """
    ids, place = corpus.ids(split), (process_index, num_processes)
    begin, draw = corpus.manifest.begin, (seed, epoch)
    if split not in corpus.starts:
        return Segments(
            ids,
            batch_size,
            segment_length,
            *place,
            begin=begin,
            ext_len=settings.ext_len,
            varlen=draw if settings.varlen else None,
        )
    kind = Sentences if corpus.manifest.stream == "sentences" and settings.keep_memory else Documents
    return kind(ids, corpus.starts[split], batch_size, segment_length, *place, begin=begin, shuffle=draw)
