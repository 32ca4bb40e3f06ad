"""Texts encoded once into files of ids, and the corpus that is opened from them without reading it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from transformer_xl.data import encoding
from transformer_xl.data.datasets import KNOWN_SETS, SPLITS, KnownSet, Split
from transformer_xl.data.sources import BUILTIN_PREFIX, Piece, Text, known_text, text_of
from transformer_xl.data.text_settings import TextSettings
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary, load_vocabulary
from transformer_xl.text.vocabulary import LINE_END, Ids, Unit, Vocabulary
from transformer_xl.text.vocabulary_files import read_symbols

MANIFEST_FILE = "corpus.json"
FORMAT = 1
HELD_OUT = 0.05
BYTE_PAIRS = 8_000
BYTES_AT_ONCE = 1 << 24

Starts = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SplitManifest:
    """What a split holds: its ids, what was counted in its text, and a checksum for each of its files."""

    tokens: int
    unknown: int
    symbols: int
    bytes: int
    characters: int
    words: int
    pieces: int | None
    checksums: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """What the files of a corpus hold.

    `tokens` of a split are its ids, `symbols` the different ones among them, `pieces` its sentences or documents, if
    the corpus tells them apart. `bytes`, `characters` and `words` are those of the text; of arrays of ids they are 0.
    """

    unit: Unit
    vocab_size: int
    dtype: str
    stream: str
    begin: int | None
    dataset: str | None
    vocabulary_checksum: str
    splits: dict[Split, SplitManifest]

    @property
    def checksum(self) -> str:
        """One string for all that the corpus holds; of two corpora that differ in anything, it differs."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """The texts to train on, to validate on and to test on, as ids of one vocabulary.

    `starts` holds, for a corpus of sentences or documents, the places at which those of each split start.
    """

    vocabulary: Vocabulary | TokenizerVocabulary
    train: Ids
    valid: Ids
    test: Ids | None = None
    manifest: Manifest | None = None
    starts: dict[Split, Starts] = field(default_factory=dict)

    def ids(self, split: Split) -> Ids:
        """The ids of a split."""
        ids = {"train": self.train, "valid": self.valid, "test": self.test}[split]
        if ids is None:
            raise ValueError("the corpus has no test text: encode it again with one")
        return ids


def encode_corpus(
    settings: TextSettings, folder: str | Path, show_progress: bool = False, num_processes: int | None = None
) -> Corpus:
    """Encode the texts of the settings into the files of a new folder, and open it.

    The folder appears when all of it is written and on the disk. Its files: `train.ids.npy`, `valid.ids.npy` and, with
    a test text, `test.ids.npy`, in the smallest unsigned type that holds the vocabulary; for sentences or documents,
    `train.starts.npy` and so on; those of the tokenizer; and `corpus.json`, the manifest. Of text that is given without
    a validation text the last 5 % are held out. The vocabulary is that of the training text alone.

    Args:
        settings: What is read, and what a symbol of it is.
        folder: A folder that is new or empty.
        show_progress: Whether a bar shows how far it is.
        num_processes: How many processes work side by side; as many as there are cores by default.

    Raises:
        FileExistsError: The folder is not empty.
        FileNotFoundError: A text is missing.
        ValueError: A text is empty or not UTF-8, or does not go with the vocabulary.
    """
    path = Path(folder).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{str(folder)!r} is there already: give another name for the corpus or remove it first")
    for leftover in _leftovers(path):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    unfinished.mkdir(parents=True)
    try:
        with tqdm(unit="B", unit_scale=True, disable=not show_progress, desc="encoding", delay=1) as bar:
            manifest = _Encoding(settings, unfinished, bar, num_processes or encoding.cores()).finish()
        _write_manifest(manifest, unfinished)
        if path.exists():
            path.rmdir()
        unfinished.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if settings.dataset is not None and KNOWN_SETS[settings.dataset].unit == settings.unit:
        for mistake in _miscounts(KNOWN_SETS[settings.dataset], manifest):
            warnings.warn(mistake, stacklevel=2)
    return open_corpus(path)


def open_corpus(folder: str | Path, verify: bool = False) -> Corpus:
    """Open a corpus that `encode_corpus` wrote; its ids stay on disk until they are looked at.

    Args:
        folder: The folder of the corpus.
        verify: Whether all files are read and their checksums compared; otherwise their sizes are.

    Raises:
        FileNotFoundError: There is no such folder, or it is no corpus.
        ValueError: A file is not as it was written.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    for counts in manifest.splits.values():
        for name, checksum in counts.checksums.items():
            if not (path / name).is_file():
                raise ValueError(f"{name} is missing in the corpus {str(folder)!r}: encode the text again")
            if verify and _checksum_of_file(path / name) != checksum:
                raise ValueError(f"{name} in the corpus {str(folder)!r} has changed: encode the text again")
    if _checksum_of_vocabulary(path) != manifest.vocabulary_checksum:
        raise ValueError(
            f"the tokenizer in the corpus {str(folder)!r} is not the one that it was encoded with: "
            "encode the text again"
        )
    vocabulary = load_vocabulary(path)
    ids, starts = {}, {}
    for split, counts in manifest.splits.items():
        ids[split] = _open_array(path / _ids_file(split), manifest.dtype, counts.tokens)
        if counts.pieces is not None:
            starts[split] = _open_array(path / _starts_file(split), "uint64", counts.pieces)
    return Corpus(vocabulary, ids["train"], ids["valid"], ids.get("test"), manifest, starts)


def open_or_encode(settings: TextSettings, folder: str | Path, show_progress: bool = False) -> Corpus:
    """The corpus of the settings: the one that `train` names, if it is the folder of one, or a new one in `folder`."""
    if settings.train is not None and is_corpus(settings.train):
        return open_corpus(settings.train)
    return encode_corpus(settings, folder, show_progress)


def is_corpus(folder: str | Path) -> bool:
    """Whether a folder holds a whole corpus."""
    return Path(folder, MANIFEST_FILE).is_file()


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a corpus."""
    path = Path(folder, MANIFEST_FILE)
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is no encoded corpus, {MANIFEST_FILE} is missing: give a folder that "
            "`transformer-xl encode` wrote to the end"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("it is of another version")
        checksum = content.pop("checksum")
        content["splits"] = {split: SplitManifest(**counts) for split, counts in content["splits"].items()}
        manifest = Manifest(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}): encode the text again") from error
    if manifest.checksum != checksum:
        raise ValueError(f"{str(path)!r} is not as it was written: encode the text again")
    return manifest


def read_text(source: str, split: Split = "train") -> str:
    """The whole text of UTF-8 files, or the named split of `builtin:shakespeare` (90/5/5 by position)."""
    return "".join(map(encoding.text_of_piece, _pieces(text_of(source, split), source)))


def read_corpus(settings: TextSettings) -> Corpus:
    """The corpus of small texts, in memory."""
    texts = _texts(settings, None)
    vocabulary = _vocabulary(settings, texts["train"], lambda pieces: pieces, num_processes=1)
    splits = {
        split: np.concatenate(
            [
                np.empty(0, np.min_scalar_type(len(vocabulary) - 1)),
                *(each.ids for each in encoding.encode(_pieces(text, split), vocabulary, "ordered", num_processes=1)),
            ]
        )
        for split, text in texts.items()
    }
    return Corpus(vocabulary, splits["train"], splits["valid"], splits.get("test"))


class _Encoding:
    """The files of a corpus while they are written."""

    def __init__(self, settings: TextSettings, folder: Path, bar: tqdm, num_processes: int) -> None:
        self.settings = settings
        self.folder = folder
        self.bar = bar
        self.num_processes = num_processes

    def finish(self) -> Manifest:
        settings = self.settings
        spool = self.folder / "standard input"
        texts = _texts(settings, spool)
        vocabulary = _vocabulary(settings, texts["train"], self._shown, self.num_processes)
        dtype = np.min_scalar_type(len(vocabulary) - 1)
        splits = {split: self._write_split(split, text, vocabulary, dtype) for split, text in texts.items()}
        spool.unlink(missing_ok=True)
        vocabulary.save(self.folder)
        return Manifest(
            settings.unit,
            len(vocabulary),
            dtype.name,
            settings.stream,
            vocabulary.line_end_id if settings.begin is None else settings.begin,
            settings.dataset,
            _checksum_of_vocabulary(self.folder),
            splits,
        )

    def _write_split(
        self, split: Split, text: Text, vocabulary: Vocabulary | TokenizerVocabulary, dtype: np.dtype[Any]
    ) -> SplitManifest:
        settings = self.settings
        counted = np.zeros(4, np.int64)
        present = np.zeros(len(vocabulary), bool)
        ids = _ArrayFile(self.folder / _ids_file(split), dtype)
        starts = None
        if settings.stream != "ordered":
            starts = _ArrayFile(self.folder / _starts_file(split), np.dtype(np.uint64))
        pieces = self._shown(_pieces(text, split))
        for encoded in encoding.encode(pieces, vocabulary, settings.stream, self.num_processes):
            if starts is not None:
                starts.append(np.asarray(encoded.starts, np.uint64) + np.uint64(ids.length))
            ids.append(encoded.ids)
            present[encoded.ids] = True
            counted += (encoded.num_unknown, encoded.num_bytes, encoded.num_characters, encoded.num_words)
        checksums = {file.path.name: file.close() for file in (ids, starts) if file is not None}
        unknown, num_bytes, characters, words = counted.tolist()
        return SplitManifest(
            ids.length,
            unknown,
            int(present.sum()),
            num_bytes,
            characters,
            words,
            None if starts is None else starts.length,
            checksums,
        )

    def _shown(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            yield piece
            self.bar.update(len(piece.content))


class _ArrayFile:
    """A `.npy` file of one dimension, written piece by piece."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.dtype = dtype.newbyteorder("<")
        self.length = 0
        self._hash = hashlib.sha256()
        self._file = path.open("wb")
        self._write_header()
        self._header_length = self._file.tell()

    def append(self, array: npt.NDArray[Any]) -> None:
        content = np.ascontiguousarray(array, self.dtype).tobytes()
        self._file.write(content)
        self._hash.update(content)
        self.length += len(array)

    def close(self) -> str:
        """The checksum of what was written, which is then on the disk."""
        self._file.seek(0)
        # NumPy leaves room in the header for any length.
        self._write_header()
        assert self._file.tell() == self._header_length
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def _write_header(self) -> None:
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, description)


def _texts(settings: TextSettings, spool: Path | None) -> dict[Split, Text]:
    """The text of each split."""
    if settings.dataset is not None:
        if settings.data is None:
            raise ValueError(f"dataset is {settings.dataset!r}, but data is missing: give the folder of its files")
        return {split: known_text(settings.dataset, split, settings.data) for split in SPLITS}
    assert settings.train is not None
    given: dict[Split, str | None] = {"train": settings.train, "valid": settings.valid, "test": settings.test}
    if settings.valid is None and settings.train.startswith(BUILTIN_PREFIX):
        given["valid"] = settings.train
    if sum(source == "-" for source in given.values()) > 1:
        raise ValueError("standard input is named more than once, but can be read once only: give files for the others")
    texts = {
        split: text_of(source, split, settings.field, spool) for split, source in given.items() if source is not None
    }
    if "valid" not in texts:
        whole = texts["train"]
        border = whole.border(round(whole.size() * (1 - HELD_OUT)), at_line_end=settings.unit not in ("char", "byte"))
        texts["train"], texts["valid"] = Text(whole.sources, 0, border), Text(whole.sources, border)
    return texts


def _vocabulary(
    settings: TextSettings, text: Text, shown: Callable[[Iterable[Piece]], Iterable[Piece]], num_processes: int
) -> Vocabulary | TokenizerVocabulary:
    """The vocabulary that the settings name, or else that of the text."""
    known = None if settings.dataset is None else KNOWN_SETS[settings.dataset]
    line_end = LINE_END if known is None else known.line_end
    if settings.vocabulary is not None:
        vocabulary = load_vocabulary(settings.vocabulary)
        if vocabulary.unit != settings.unit:
            raise ValueError(
                f"unit is {settings.unit!r}, but the vocabulary in {settings.vocabulary!r} is one of unit "
                f"{vocabulary.unit!r}: give that unit, or another vocabulary"
            )
        return vocabulary
    if known is not None and known.vocabulary_file is not None and settings.unit == known.unit:
        assert settings.data is not None
        symbols = read_symbols(Path(settings.data, known.vocabulary_file))
        return Vocabulary("word", symbols, line_end=line_end, lower_case=settings.lower_case)
    if settings.unit == "byte":
        return Vocabulary.build("", "byte")
    pieces = shown(_pieces(text, "train"))
    if settings.unit == "bpe":
        from transformer_xl.text.units import byte_pair_tokenizer

        lines = (line for piece in pieces for line in encoding.text_of_piece(piece).splitlines(keepends=True))
        return TokenizerVocabulary(byte_pair_tokenizer(lines, settings.vocab_size or BYTE_PAIRS))
    counts = encoding.count(pieces, settings.unit, line_end, settings.lower_case, num_processes)
    return Vocabulary.of_counts(
        counts, settings.unit, settings.min_count, line_end=line_end, lower_case=settings.lower_case
    )


def _pieces(text: Text, name: str) -> Iterator[Piece]:
    """The pieces of a text; an empty text is refused."""
    is_empty = True
    for piece in text.pieces():
        is_empty = False
        yield piece
    # What is held out of a short text may be empty; whoever reads it says how much is needed.
    if is_empty and not text.start:
        names = " and ".join(repr(_name(source)) for source in text.sources) or repr(name)
        raise ValueError(f"{names} is empty: give a file with text")


def _name(source: Any) -> str:
    return str(getattr(source, "name", None) or source.path)


def _miscounts(known: KnownSet, manifest: Manifest) -> Iterator[str]:
    """A sentence for each count that is not the published one."""
    for split, expected in known.counts.items():
        if (tokens := manifest.splits[split].tokens) != expected:
            yield (
                f"{known.title}, {split}: {tokens:,} symbols were counted, but {expected:,} are in the published one: "
                "scores on it cannot be compared with published ones"
            )
    symbols = manifest.vocab_size if known.unit == "word" else manifest.splits["train"].symbols
    if symbols != known.num_symbols:
        yield (
            f"{known.title}: {symbols:,} different symbols were counted, but {known.num_symbols:,} are in the "
            "published one: scores on it cannot be compared with published ones"
        )


def _open_array(path: Path, dtype: str, length: int) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if length else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{str(path)!r} cannot be opened ({error}): encode the text again") from error
    if array.dtype != np.dtype(dtype) or array.shape != (length,):
        raise ValueError(
            f"{str(path)!r} holds {array.dtype} {list(array.shape)}, but the manifest says {dtype} [{length}]: "
            "encode the text again"
        )
    return array


def _ids_file(split: Split) -> str:
    return f"{split}.ids.npy"


def _starts_file(split: Split) -> str:
    return f"{split}.starts.npy"


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    content = {"format": FORMAT, "checksum": manifest.checksum, **asdict(manifest)}
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum_of_file(path: Path) -> str:
    """The checksum of what follows the header of a `.npy` file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while block := file.read(BYTES_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def _checksum_of_vocabulary(folder: Path) -> str:
    """The checksum of the tokenizer's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt") and path.name != MANIFEST_FILE:
            digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _leftovers(path: Path) -> Iterator[Path]:
    """What processes of this machine that were killed left of this corpus."""
    for leftover in path.parent.glob(f".{path.name}.{socket.gethostname()}.*.partial"):
        number = leftover.name.split(".")[-2]
        if number.isdigit() and not _is_alive(int(number)):
            yield leftover


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
