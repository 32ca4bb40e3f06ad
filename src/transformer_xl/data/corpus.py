"""Texts on disk or built in, and the corpus of ids that they become."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary, build_vocabulary
from transformer_xl.text.vocabulary import Ids, Unit, Vocabulary

Split = Literal["train", "valid", "test"]

BUILTIN_PREFIX = "builtin:"
BUILTIN_NAMES = ("shakespeare",)
BUILTIN_SPLITS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}
HELD_OUT = 0.05


@dataclass(frozen=True)
class Corpus:
    """A training and a validation text as ids of one vocabulary, which was built from the training text."""

    vocabulary: Vocabulary | TokenizerVocabulary
    train: Ids
    valid: Ids


def read_corpus(train: str, valid: str | None, unit: Unit, min_count: int = 1, vocab_size: int = 0) -> Corpus:
    """The corpus of a training text and, where one is given, a validation text: files or `builtin:shakespeare`.

    Without a validation text, the built-in text brings its own and of a file the last 5 % are held out.
    """
    training_text = read_text(train, "train")
    if valid is not None:
        validation_text = read_text(valid, "valid")
    elif train.startswith(BUILTIN_PREFIX):
        validation_text = read_text(train, "valid")
    else:
        border = round(len(training_text) * (1 - HELD_OUT))
        training_text, validation_text = training_text[:border], training_text[border:]
    vocabulary = build_vocabulary(training_text, unit, min_count, vocab_size)
    return Corpus(vocabulary, vocabulary.encode(training_text), vocabulary.encode(validation_text))


def read_text(source: str, split: Split = "train") -> str:
    """The whole text of a UTF-8 file, or the named split of `builtin:shakespeare` (90/5/5 by position)."""
    if not source.startswith(BUILTIN_PREFIX):
        return _read_file(Path(source))
    text = _read_builtin(source.removeprefix(BUILTIN_PREFIX))
    start, stop = (round(len(text) * fraction) for fraction in BUILTIN_SPLITS[split])
    return text[start:stop]


def _read_file(path: Path) -> str:
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder: give a UTF-8 text file")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}: give a UTF-8 text file or builtin:shakespeare")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{str(path)!r} is empty: give a file with text")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} is not UTF-8: the byte 0x{content[error.start]:02x} at offset {error.start} "
            "does not belong there; convert the file to UTF-8"
        ) from error


def _read_builtin(name: str) -> str:
    if name not in BUILTIN_NAMES:
        raise ValueError(f"there is no built-in text {name!r}: the ones there are: {', '.join(BUILTIN_NAMES)}")
    packed = resources.files("transformer_xl.data").joinpath("builtin", f"{name}.txt.xz").read_bytes()
    return lzma.decompress(packed).decode("utf-8")
