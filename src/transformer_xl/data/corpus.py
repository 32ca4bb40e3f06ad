"""Texts encoded once into files of ids, and the corpus that is opened from them without reading it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from transformer_xl.data import encoding
from transformer_xl.data.corpus_files import ArrayFile, checksum_of_array, checksum_of_tokenizer, new_folder, open_array
from transformer_xl.data.datasets import KNOWN_SETS, SPLITS, Split
from transformer_xl.data.encoding import Encoded
from transformer_xl.data.id_arrays import IdArrays
from transformer_xl.data.manifest import MANIFEST_FILE, Manifest, SplitManifest, read_manifest
from transformer_xl.data.sources import (
    ARRAY_SUFFIXES,
    BUILTIN_PREFIX,
    STANDARD_INPUT,
    Piece,
    Text,
    files_of,
    known_text,
    text_of,
)
from transformer_xl.data.text_settings import TextSettings
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary, load_vocabulary
from transformer_xl.text.vocabulary import LINE_END, Ids, Vocabulary
from transformer_xl.text.vocabulary_files import read_symbols

HELD_OUT = 0.05
BYTE_PAIRS = 8_000

Starts = npt.NDArray[np.uint64]
AnyVocabulary = Vocabulary | TokenizerVocabulary


@dataclass(frozen=True)
class Corpus:
    """The texts to train on, to validate on and to test on, as ids of one vocabulary.

    `starts` holds, for a corpus of sentences or documents, the places at which those of each split start.
    """

    vocabulary: AnyVocabulary
    train: Ids
    valid: Ids
    test: Ids | None
    manifest: Manifest
    starts: dict[Split, Starts]

    def ids(self, split: Split) -> Ids:
        """The ids of a split."""
        ids = {"train": self.train, "valid": self.valid, "test": self.test}[split]
        if ids is None:
            raise ValueError("the corpus has no test text: encode it again with one")
        return ids


def encode_corpus(
    settings: TextSettings,
    folder: str | Path,
    show_progress: bool = False,
    num_processes: int | None = None,
    strict: bool = False,
) -> Corpus:
    """Encode the texts of the settings into the files of a new folder, and open it.

    The folder appears when all of it is written and on the disk. Its files: `train.ids.npy`, `valid.ids.npy` and, with
    a test text, `test.ids.npy`, in the smallest unsigned type that holds the vocabulary; for sentences or documents,
    `train.starts.npy` and so on; those of the tokenizer; and `corpus.json`, the manifest. Of text that is given without
    a validation text the last 5 % are held out. The vocabulary is that of the training text alone; that of ids is
    large enough for all splits.

    Args:
        settings: What is read, and what a symbol of it is.
        folder: A folder that is new or empty.
        show_progress: Whether a bar shows how far it is.
        num_processes: How many processes work side by side; as many as there are cores by default.
        strict: Whether a known set that does not count what the published one does is refused; otherwise it is a
            warning.

    Raises:
        FileExistsError: The folder is not empty.
        FileNotFoundError: A text is missing.
        ValueError: A text is empty or not UTF-8, or does not go with the vocabulary or the known set.
    """
    # The bar waits a little, so that a mistake is one sentence on the screen.
    bar = tqdm(unit="B", unit_scale=True, disable=not show_progress, desc="encoding", delay=1, leave=False)
    with new_folder(folder) as unfinished, bar:
        manifest = _Encoding(settings, unfinished, bar, num_processes or encoding.cores()).finish()
        miscounts = list(_miscounts(settings, manifest))
        if miscounts and strict:
            raise ValueError(miscounts[0])
        manifest.save(unfinished)
    for miscount in miscounts:
        warnings.warn(miscount, stacklevel=2)
    return open_corpus(folder)


def open_corpus(folder: str | Path, verify: bool = False) -> Corpus:
    """Open a corpus that `encode_corpus` wrote; its ids stay on disk until they are looked at.

    Args:
        folder: The folder of the corpus.
        verify: Whether all files are read and their checksums compared; otherwise only their sizes are.

    Raises:
        FileNotFoundError: There is no such folder, or it is no corpus.
        ValueError: A file is missing or not as it was written.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    if checksum_of_tokenizer(path) != manifest.vocabulary_checksum:
        raise ValueError(
            f"the tokenizer in the corpus {str(folder)!r} is not the one that it was encoded with: "
            "encode the text again"
        )
    ids: dict[Split, Ids] = {}
    starts: dict[Split, Starts] = {}
    for split, counts in manifest.splits.items():
        ids[split] = open_array(path / _ids_file(split), manifest.dtype, counts.tokens)
        if counts.pieces is not None:
            starts[split] = open_array(path / _starts_file(split), "uint64", counts.pieces)
        arrays: dict[str, npt.NDArray[Any]] = {_ids_file(split): ids[split]}
        if split in starts:
            arrays[_starts_file(split)] = starts[split]
        for name, array in arrays.items() if verify else ():
            if checksum_of_array(array) != counts.checksums[name]:
                raise ValueError(f"{name} in the corpus {str(folder)!r} has changed: encode the text again")
    return Corpus(load_vocabulary(path), ids["train"], ids["valid"], ids.get("test"), manifest, starts)


def open_or_encode(settings: TextSettings, folder: str | Path, show_progress: bool = False) -> Corpus:
    """The corpus of the settings: the one that `train` names, if it is the folder of one, or a new one in `folder`."""
    if settings.train is not None and is_corpus(settings.train):
        return open_corpus(settings.train)
    return encode_corpus(settings, folder, show_progress)


def is_corpus(folder: str | Path) -> bool:
    """Whether a folder holds a whole corpus."""
    return Path(folder, MANIFEST_FILE).is_file()


def read_text(source: str, split: Split = "train") -> str:
    """The whole text of UTF-8 files, or the named split of `builtin:shakespeare` (90/5/5 by position)."""
    return "".join(map(encoding.text_of_piece, _pieces(text_of(source, split))))


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
        self.bar.total = self._num_bytes(texts)
        vocabulary = self._vocabulary(texts)
        dtype = np.min_scalar_type(len(vocabulary) - 1)
        splits = {split: self._write_split(split, text, vocabulary, dtype) for split, text in texts.items()}
        spool.unlink(missing_ok=True)
        vocabulary.save(self.folder)
        return Manifest(
            vocabulary.unit,
            len(vocabulary),
            dtype.name,
            settings.stream,
            vocabulary.line_end_id if settings.begin is None else settings.begin,
            settings.dataset,
            checksum_of_tokenizer(self.folder),
            splits,
        )

    def _vocabulary(self, texts: dict[Split, Text | IdArrays]) -> AnyVocabulary:
        """The vocabulary that the settings name, or else that of the training text."""
        settings = self.settings
        known = None if settings.dataset is None else KNOWN_SETS[settings.dataset]
        if settings.vocabulary is not None:
            return _vocabulary_of_folder(settings.vocabulary, settings.unit)
        if settings.unit == "byte":
            return Vocabulary.build("", "byte")
        if settings.unit == "id":
            size = settings.vocab_size or 1 + max(map(self._largest, texts.values()))
            if settings.begin is not None and settings.begin >= size:
                raise ValueError(
                    f"begin is {settings.begin}, but ids are 0 to {size - 1:,} here: give a larger vocab_size"
                )
            return Vocabulary.of_ids(size)
        line_end = LINE_END if known is None else known.line_end
        if known is not None and known.vocabulary_file is not None and settings.unit == known.unit:
            symbols = read_symbols(Path(str(settings.data), known.vocabulary_file))
            return Vocabulary("word", symbols, line_end=line_end, lower_case=settings.lower_case)
        text = texts["train"]
        assert isinstance(text, Text)
        pieces = self._shown(_pieces(text))
        if settings.unit == "bpe":
            from transformer_xl.text.units import byte_pair_tokenizer

            lines = (line for piece in pieces for line in encoding.text_of_piece(piece).splitlines(keepends=True))
            return TokenizerVocabulary(byte_pair_tokenizer(lines, settings.vocab_size or BYTE_PAIRS))
        counts = encoding.count(pieces, settings.unit, line_end, settings.lower_case, self.num_processes)
        return Vocabulary.of_counts(
            counts, settings.unit, settings.min_count, line_end=line_end, lower_case=settings.lower_case
        )

    def _num_bytes(self, texts: dict[Split, Text | IdArrays]) -> int | None:
        """The bytes that will be read, if that is known: the training text is counted first."""
        sizes = [text.known_size for text in texts.values() if isinstance(text, Text)]
        if self.settings.unit != "byte" and sizes:
            sizes.append(sizes[0])
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _largest(self, text: Text | IdArrays) -> int:
        """The largest id of a text."""
        if isinstance(text, IdArrays):
            return text.largest()
        numbers = encoding.count(self._shown(_pieces(text)), "id", LINE_END, False, self.num_processes)
        for number in numbers:
            if not number.isdecimal():
                raise ValueError(f"{number!r} is no id: give whole numbers from 0 on, with white space between them")
        return max(map(int, numbers), default=0)

    def _write_split(
        self, split: Split, text: Text | IdArrays, vocabulary: AnyVocabulary, dtype: np.dtype[Any]
    ) -> SplitManifest:
        counted = np.zeros(4, np.int64)
        present = np.zeros(len(vocabulary), bool)
        with ExitStack() as stack:
            ids = stack.enter_context(ArrayFile(self.folder / _ids_file(split), dtype))
            files, starts = [ids], None
            if self.settings.stream != "ordered":
                starts = stack.enter_context(ArrayFile(self.folder / _starts_file(split), np.dtype(np.uint64)))
                files.append(starts)
            for encoded in self._encoded(text, vocabulary):
                if starts is not None:
                    starts.append(np.asarray(encoded.starts, np.uint64) + np.uint64(ids.length))
                ids.append(encoded.ids)
                present[encoded.ids] = True
                counted += (encoded.num_unknown, encoded.num_bytes, encoded.num_characters, encoded.num_words)
            checksums = {file.path.name: file.finish() for file in files}
        unknown, num_bytes, characters, words = counted.tolist()
        return SplitManifest(
            tokens=ids.length,
            unknown=unknown,
            symbols=int(present.sum()),
            bytes=num_bytes,
            characters=characters,
            words=words,
            pieces=None if starts is None else starts.length,
            checksums=checksums,
        )

    def _encoded(self, text: Text | IdArrays, vocabulary: AnyVocabulary) -> Iterator[Encoded]:
        if isinstance(text, IdArrays):
            return text.encoded(len(vocabulary))
        return encoding.encode(self._shown(_pieces(text)), vocabulary, self.settings.stream, self.num_processes)

    def _shown(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            yield piece
            self.bar.update(len(piece.content))


def _texts(settings: TextSettings, spool: Path) -> dict[Split, Text | IdArrays]:
    """The text of each split; standard input is kept in the file `spool`."""
    if settings.dataset is not None:
        if settings.data is None:
            raise ValueError(f"dataset is {settings.dataset!r}, but data is missing: give the folder of its files")
        return {split: known_text(settings.dataset, split, settings.data) for split in SPLITS}
    assert settings.train is not None
    given: dict[Split, str | None] = {"train": settings.train, "valid": settings.valid, "test": settings.test}
    if settings.valid is None and settings.train.startswith(BUILTIN_PREFIX):
        given["valid"] = settings.train
    if list(given.values()).count(STANDARD_INPUT) > 1:
        raise ValueError("standard input is named more than once, but can be read only once: give files for the others")
    texts = {
        split: _text_or_arrays(source, split, settings, spool) for split, source in given.items() if source is not None
    }
    if "valid" not in texts:
        texts["train"], texts["valid"] = _with_held_out(texts["train"], settings)
    return texts


def _text_or_arrays(source: str, split: Split, settings: TextSettings, spool: Path) -> Text | IdArrays:
    if is_corpus(source):
        raise ValueError(f"{source!r} is an encoded corpus: give it as the training text alone, which it replaces")
    if not source.endswith(ARRAY_SUFFIXES):
        return text_of(source, split, settings.field, spool)
    if settings.unit != "id":
        raise ValueError(f"{source!r} holds ids, but unit is {settings.unit!r}: give unit id")
    return IdArrays(files_of(source))


def _with_held_out(whole: Text | IdArrays, settings: TextSettings) -> tuple[Text | IdArrays, Text | IdArrays]:
    if isinstance(whole, IdArrays):
        return whole.held_out(HELD_OUT, at_document=settings.stream != "ordered")
    at_line_end = settings.unit not in ("char", "byte") or settings.stream != "ordered"
    border = whole.border(round(whole.size() * (1 - HELD_OUT)), at_line_end)
    return Text(whole.sources, 0, border), Text(whole.sources, border)


def _vocabulary_of_folder(folder: str, unit: str) -> AnyVocabulary:
    vocabulary = load_vocabulary(folder)
    if vocabulary.unit != unit:
        raise ValueError(
            f"unit is {unit!r}, but the vocabulary in {folder!r} is one of unit {vocabulary.unit!r}: give that unit, "
            "or another vocabulary"
        )
    return vocabulary


def _pieces(text: Text) -> Iterator[Piece]:
    """The pieces of a text; an empty text is refused."""
    is_empty = True
    for piece in text.pieces():
        is_empty = False
        yield piece
    # What is held out of a short text may be empty; whoever reads it says how much is needed.
    if is_empty and not text.start:
        raise ValueError(
            f"{' and '.join(repr(source.name) for source in text.sources)} is empty: give a file with text"
        )


def _miscounts(settings: TextSettings, manifest: Manifest) -> Iterator[str]:
    """A sentence for each count of a known set that is not the published one."""
    if settings.dataset is None or (known := KNOWN_SETS[settings.dataset]).unit != settings.unit:
        return
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


def _ids_file(split: Split) -> str:
    return f"{split}.ids.npy"


def _starts_file(split: Split) -> str:
    return f"{split}.starts.npy"
