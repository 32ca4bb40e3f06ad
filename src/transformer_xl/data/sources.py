"""Where texts come from: files, patterns, standard input, tables, known sets and the built-in text.

A text is a sequence of documents in UTF-8; it is read in pieces that are small, whatever the text's size.
"""

from __future__ import annotations

import glob
import gzip
import io
import lzma
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import BinaryIO, cast

from transformer_xl.data.datasets import KNOWN_SETS, Split

BUILTIN_PREFIX = "builtin:"
BUILTIN_NAMES = ("shakespeare",)
BUILTIN_SPLITS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}
STANDARD_INPUT = "-"
TABLE_FORMATS = {".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}
ARRAY_SUFFIXES = (".npy", ".safetensors")
PIECE_BYTES = 1 << 22
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Piece:
    """Some bytes of a text, which end at the end of a line, or where there is none, before a space or a character.

    `offset` is the place of the first byte in `name`; documents start at the places `starts` in `content`.
    """

    name: str
    offset: int
    content: bytes
    starts: tuple[int, ...]


@dataclass(frozen=True)
class File:
    """One document, all that `open` reads; its size, if that is known without reading it."""

    name: str
    open: Callable[[], BinaryIO]
    size: int | None = None

    def pieces(self) -> Iterator[Piece]:
        """The document piece by piece."""
        offset, rest = 0, b""
        for block in self._blocks():
            content = rest + block
            border = _border(content) if len(content) >= PIECE_BYTES else 0
            if border:
                yield Piece(self.name, offset, content[:border], () if offset else (0,))
            offset, rest = offset + border, content[border:]
        if rest:
            yield Piece(self.name, offset, rest, () if offset else (0,))

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self.open() as file:
                while block := file.read(PIECE_BYTES):
                    yield block
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise ValueError(f"{self.name!r} cannot be unpacked ({error}): fetch or pack the file again") from error


@dataclass(frozen=True)
class Table:
    """The rows of a table, each a document that ends with a line end."""

    path: Path
    field: str

    size = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return str(self.path)

    def pieces(self) -> Iterator[Piece]:
        """Many rows at once."""
        offset = 0
        for rows in self._batches():
            documents = [row if row.endswith("\n") else f"{row}\n" for row in rows]
            contents = [document.encode("utf-8", "surrogateescape") for document in documents]
            starts, length = [], 0
            for content in contents:
                starts.append(length)
                length += len(content)
            yield Piece(self.name, offset, b"".join(contents), tuple(starts))
            offset += length

    def _batches(self) -> Iterator[list[str]]:
        for batch in self._columns():
            if self.field not in batch:
                names = ", ".join(map(repr, batch))
                raise ValueError(f"{self.name!r} has no column {self.field!r}: give field as one of {names}")
            yield [self._text(value) for value in batch[self.field]]

    def _columns(self) -> Iterator[dict[str, list[object]]]:
        """The columns of some rows at a time."""
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise ValueError(
                f"{self.name!r} is a table, and the package datasets, which reads tables, is not installed: "
                "pip install 'transformer-xl[datasets]'"
            ) from error
        kind = TABLE_FORMATS[_suffix(self.path)]
        try:
            rows = load_dataset(kind, data_files=self.name, split="train", streaming=True)
            yield from rows.iter(batch_size=ROWS_AT_ONCE)
        except Exception as error:  # Readers of several formats, each with errors of its own.
            raise ValueError(f"{self.name!r} cannot be read as {kind} ({error}): write the file again") from error

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(
                f"the column {self.field!r} of {self.name!r} holds {value!r}, which is no text: "
                "name the column that holds the text"
            )
        return value


@dataclass(frozen=True)
class Text:
    """Documents one after the other, or the part of them from byte `start` to byte `stop`.

    With `without_line_ends`, line ends are read over.
    """

    sources: Sequence[File | Table]
    start: int = 0
    stop: int | None = None
    without_line_ends: bool = False

    def pieces(self) -> Iterator[Piece]:
        """The text piece by piece."""
        begin = 0
        for source in self.sources:
            for piece in source.pieces():
                cut = self._cut(piece, begin)
                begin += len(piece.content)
                if cut.content:
                    yield _without_line_ends(cut) if self.without_line_ends else cut
                if self.stop is not None and begin >= self.stop:
                    return

    @property
    def known_size(self) -> int | None:
        """The number of bytes, if that is known without reading them."""
        if self.stop is not None:
            return self.stop - self.start
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(size or 0 for size in sizes) - self.start

    def size(self) -> int:
        """The number of bytes; the text is read through for it."""
        return sum(len(piece.content) for piece in self.pieces())

    def border(self, place: int, at_line_end: bool) -> int:
        """The first byte from `place` on at which a text may be cut: at a line's start, or else a character's."""
        for piece in Text(self.sources, place).pieces():
            if at_line_end:
                return place + piece.content.find(b"\n") + 1
            return place + next(i for i, byte in enumerate(piece.content) if byte & 0xC0 != 0x80)
        return place

    def _cut(self, piece: Piece, begin: int) -> Piece:
        first = max(0, self.start - begin)
        last = len(piece.content) if self.stop is None else max(0, self.stop - begin)
        starts = {start - first for start in piece.starts if first <= start < last}
        if begin <= self.start:
            starts.add(0)
        return Piece(piece.name, piece.offset + first, piece.content[first:last], tuple(sorted(starts)))


def text_of(source: str, split: Split, field: str = "text", spool: Path | None = None) -> Text:
    """The text of a setting: files, a pattern, standard input, tables, or the named split of the built-in text.

    Standard input is kept in the file `spool`, since a text is read more than once.

    Raises:
        FileNotFoundError: There is no such file, or none that the pattern fits.
        ValueError: It is a folder, or there is no such built-in text.
    """
    if source.startswith(BUILTIN_PREFIX):
        content = builtin_text(source.removeprefix(BUILTIN_PREFIX), split).encode("utf-8")
        return Text([File(source, lambda: io.BytesIO(content), len(content))])
    if source == STANDARD_INPUT:
        if spool is None:
            raise ValueError("standard input cannot be read here: give the name of a file")
        with spool.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return Text([File("standard input", lambda: spool.open("rb"), spool.stat().st_size)])
    return Text([_source(path, field) for path in files_of(source)])


def files_of(source: str) -> list[Path]:
    """The files of a name or of a pattern with *, ? or [...], in the order of their names."""
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"{source!r} is a folder: give a UTF-8 text file, or a pattern like '{source}/*.txt'")
    if path.exists():
        return [path]
    if glob.has_magic(source):
        found = sorted(Path(each) for each in glob.glob(source, recursive=True) if Path(each).is_file())
        if found:
            return found
        raise FileNotFoundError(f"no file fits the pattern {source!r}: give another one, or a UTF-8 text file")
    raise FileNotFoundError(f"there is no file {source!r}: give a UTF-8 text file or builtin:shakespeare")


def known_text(dataset: str, split: Split, folder: str) -> Text:
    """The text of a split of a known set, in its published files or their contents.

    Raises:
        FileNotFoundError: There is no such folder, or no file of the split in it.
    """
    known = KNOWN_SETS[dataset]
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder!r} with {known.title}: give the one that its published files lie in"
        )
    start, stop = known.shares.get(split, (0, None))
    for pattern in known.files[split]:
        if found := _found(Path(folder), pattern):
            return Text(found, start, stop, known.without_line_ends)
    names = " or ".join(known.files[split])
    raise FileNotFoundError(
        f"{folder!r} holds no {names} ({known.title}, {split}), nor one with .gz or in a .zip: put the file there"
    )


def builtin_text(name: str, split: Split) -> str:
    """The named split (90/5/5 by position) of a text that comes with the library."""
    if name not in BUILTIN_NAMES:
        raise ValueError(f"there is no built-in text {name!r}: the ones there are: {', '.join(BUILTIN_NAMES)}")
    packed = resources.files("transformer_xl.data").joinpath("builtin", f"{name}.txt.xz").read_bytes()
    text = lzma.decompress(packed).decode("utf-8")
    start, stop = (round(len(text) * fraction) for fraction in BUILTIN_SPLITS[split])
    return text[start:stop]


def _source(path: Path, field: str) -> File | Table:
    return Table(path, field) if _suffix(path) in TABLE_FORMATS else _file(path)


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _file(path: Path) -> File:
    if path.suffix == ".gz":
        return File(str(path), lambda: cast(BinaryIO, gzip.open(path)))
    return File(str(path), lambda: path.open("rb"), path.stat().st_size)


def _found(folder: Path, pattern: str) -> list[File]:
    for candidate in (pattern, f"{pattern}.gz"):
        if paths := sorted(path for path in folder.glob(candidate) if path.is_file()):
            return [_file(path) for path in paths]
    return [
        File(f"{archive}/{member}", partial(_member, archive, member))
        for archive in sorted(folder.glob("*.zip"))
        for member in zipfile.ZipFile(archive).namelist()
        if Path(member).match(pattern.removeprefix("**/"))
    ]


def _member(archive: Path, member: str) -> BinaryIO:
    return cast(BinaryIO, zipfile.ZipFile(archive).open(member))


def _border(content: bytes) -> int:
    """Where a piece may end: behind the last line end, or before the last space, or before the last character."""
    for border in (content.rfind(b"\n") + 1, content.rfind(b" ")):
        if border > 0:
            return border
    # A character has at most four bytes, of which only the first is none of 0x80 to 0xbf.
    first = max(0, len(content) - 4)
    begins = [place for place in range(first, len(content)) if content[place] & 0xC0 != 0x80]
    return begins[-1] if begins else len(content)


def _without_line_ends(piece: Piece) -> Piece:
    content = piece.content
    starts = tuple(start - content.count(b"\n", 0, start) for start in piece.starts)
    return Piece(piece.name, piece.offset, content.replace(b"\n", b""), starts)
