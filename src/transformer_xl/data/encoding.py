"""Pieces of text counted and encoded, on all cores at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from transformer_xl.data.sources import Piece
from transformer_xl.data.text_settings import StreamKind
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary
from transformer_xl.text.vocabulary import Ids, Unit, Vocabulary, code_points, split

# Fewer pieces are done before other processes have begun.
PIECES_WORTH_PROCESSES = 4

Result = TypeVar("Result")


@dataclass(frozen=True)
class Encoded:
    """The ids of a piece, the places in them where sentences or documents start, and what was counted."""

    ids: Ids
    starts: list[int]
    num_bytes: int
    num_characters: int
    num_words: int
    num_unknown: int


def count(pieces: Iterable[Piece], unit: Unit, line_end: str, lower_case: bool, num_processes: int) -> Counter[str]:
    """How often each character, word or number occurs in the pieces."""
    counts: Counter[str] = Counter()
    work = partial(_count, unit=unit, line_end=line_end, lower_case=lower_case)
    for counted in side_by_side(work, pieces, num_processes):
        counts.update(counted)
    return counts


def encode(
    pieces: Iterable[Piece], vocabulary: Vocabulary | TokenizerVocabulary, stream: StreamKind, num_processes: int
) -> Iterator[Encoded]:
    """The pieces as ids, in their order; `stream` says whether sentences or documents are told apart."""
    # A tokenizer of transformers works on all cores by itself.
    processes = num_processes if isinstance(vocabulary, Vocabulary) else 1
    return side_by_side(partial(_encode, vocabulary=vocabulary, stream=stream), pieces, processes)


def side_by_side(work: Callable[[Piece], Result], pieces: Iterable[Piece], num_processes: int) -> Iterator[Result]:
    """What `work` makes of each piece, in their order; a few pieces at a time are in memory."""
    remaining = iter(pieces)
    first = list(islice(remaining, PIECES_WORTH_PROCESSES))
    if num_processes == 1 or len(first) < PIECES_WORTH_PROCESSES:
        yield from map(work, chain(first, remaining))
        return
    # A forked process needs no guard in the user's script; where forking is not safe, Python's own rule holds.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(num_processes, context, _begin, (work,)) as pool:
        results: deque[Future[Result]] = deque()
        try:
            for piece in chain(first, remaining):
                results.append(pool.submit(_do, piece))
                if len(results) > 2 * num_processes:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def text_of_piece(piece: Piece) -> str:
    """The text of a piece; bytes that are not UTF-8 are a ValueError that names the file and the place."""
    try:
        return piece.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{piece.name!r} is not UTF-8: the byte 0x{piece.content[error.start]:02x} at offset "
            f"{piece.offset + error.start} does not belong there; convert the file to UTF-8"
        ) from error


_work: Callable[[Piece], Any]


def _begin(work: Callable[[Piece], Any]) -> None:
    global _work
    _work = work
    # Ctrl-C reaches all processes of a terminal; the one that was started by the user answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(piece: Piece) -> Any:
    return _work(piece)


def _count(piece: Piece, unit: Unit, line_end: str, lower_case: bool) -> Counter[str]:
    text = text_of_piece(piece)
    if unit in ("word", "id"):
        return Counter(split(text, unit, line_end, lower_case))
    counts = np.bincount(code_points(text))
    present = np.flatnonzero(counts)
    return Counter(dict(zip(map(chr, present), counts[present].tolist(), strict=True)))


def _encode(piece: Piece, vocabulary: Vocabulary | TokenizerVocabulary, stream: StreamKind) -> Encoded:
    content = piece.content
    if stream == "ordered":
        ids, starts = _ids(piece, vocabulary), []
    else:
        borders = piece.starts if stream == "documents" else _line_starts(content)
        borders = (*borders, len(content))
        rows = [
            _ids(Piece(piece.name, piece.offset + start, content[start:stop], ()), vocabulary)
            for start, stop in zip((0, *borders[:-1]), borders, strict=True)
        ]
        places = np.cumsum([len(row) for row in rows])
        ids, starts = np.concatenate(rows), places[:-1].tolist()
    values = np.frombuffer(content, np.uint8)
    return Encoded(
        ids,
        starts,
        len(content),
        int(np.count_nonzero(values & 0xC0 != 0x80)),
        _count_words(values),
        vocabulary.count_unknown(ids),
    )


def _count_words(values: npt.NDArray[np.uint8]) -> int:
    """How often something that is no white space begins."""
    space = np.isin(values, np.frombuffer(b" \t\n\r\v\f", np.uint8))
    return int(np.count_nonzero(space[:-1] & ~space[1:]) + (not space[0]))


def _line_starts(content: bytes) -> tuple[int, ...]:
    line_ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
    starts = np.concatenate([[0], line_ends + 1])
    return tuple(starts[starts < len(content)].tolist())


def _ids(piece: Piece, vocabulary: Vocabulary | TokenizerVocabulary) -> Ids:
    if vocabulary.unit == "byte":
        return np.frombuffer(piece.content, np.uint8)
    return vocabulary.encode(text_of_piece(piece))
