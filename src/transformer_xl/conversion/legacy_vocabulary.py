"""Vocabularies and corpora of old programs: the symbols in the order of their ids, and what was said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transformer_xl.conversion.legacy_files import read_legacy_file, token_ids
from transformer_xl.conversion.unpickling import StandIn, attributes, class_name
from transformer_xl.text.vocabulary_files import read_symbols

__all__ = ["LegacyCorpus", "LegacyVocabulary", "read_corpus", "read_vocabulary", "vocabulary_of"]

SPLITS = ("train", "valid", "test")
PLAIN_SETTINGS = ("special", "min_freq", "max_size", "lower_case", "delimiter", "language", "never_split")
# Attributes of the tokenizers of transformers 4, whose names begin with an underscore there.
TOKEN_SETTINGS = ("unk_token", "eos_token", "bos_token", "pad_token", "additional_special_tokens")


@dataclass(frozen=True)
class LegacyVocabulary:
    """What an old file says about a vocabulary.

    Attributes:
        symbols: The symbols in the order of their ids.
        counts: How often each symbol was counted; empty if the file does not say.
        settings: What else is known, under the argument names of `TransfoXLTokenizer`, and `added_tokens`: ids by token
            of what was added to a tokenizer afterwards; in files of transformers 4 these ids may collide with those
            of symbols.
    """

    symbols: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LegacyCorpus:
    """An encoded corpus.

    Attributes:
        dataset: Its name, as "wt103"; empty if the file does not say.
        vocabulary: Its vocabulary; None if the file has none.
        splits: The ids [N] of "train", "valid" and "test", as far as the file holds them.
    """

    dataset: str
    vocabulary: LegacyVocabulary | None
    splits: dict[str, npt.NDArray[np.int64]]


def read_vocabulary(path: str | Path) -> LegacyVocabulary:
    """Return the vocabulary of an old file; nothing in the file is run.

    Args:
        path: `vocab.pkl` and `vocab.bin` of transformers 4 in all their forms, `vocab.json` (symbol: id), `vocab.txt`
            (a symbol at the start of each line), `cache.pt` and `cache.pkl` of the authors' code, or a checkpoint of
            NVIDIA's.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds no vocabulary; the sentence names the file.

    Example:
        >>> read_vocabulary("transfo-xl-wt103/vocab.pkl").symbols[:3]
        ['<eos>', 'the', ',']
    """
    path = Path(path)
    if path.suffix in (".json", ".txt"):
        try:
            return LegacyVocabulary(read_symbols(path))
        except RecursionError as error:
            raise ValueError(f"{str(path)!r} cannot be read: it is lists within lists without end") from error
    return vocabulary_of(read_legacy_file(path), path)


def read_corpus(path: str | Path) -> LegacyCorpus:
    """Return the corpus of `corpus.bin` (transformers 4), `cache.pt` or `cache.pkl` (the authors' code).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds no corpus; the sentence names the file.
    """
    value = read_legacy_file(path)
    content = value if type(value) is dict else attributes(value)
    try:
        splits = {name: token_ids(content[name]) for name in SPLITS if content.get(name) is not None}
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
    if not splits:
        raise ValueError(f"{str(path)!r} holds no corpus: neither {', '.join(SPLITS[:-1])} nor {SPLITS[-1]} is in it")
    dataset = content.get("dataset")
    return LegacyCorpus(
        dataset=dataset if type(dataset) is str else "",
        vocabulary=vocabulary_of(content["vocab"], path) if isinstance(content.get("vocab"), StandIn) else None,
        splits={name: ids for name, ids in splits.items() if ids is not None},
    )


def vocabulary_of(value: Any, path: str | Path) -> LegacyVocabulary:
    """Return the vocabulary in what `read_legacy_file` gave for a file.

    Raises:
        ValueError: There is none, or it contradicts itself; the sentence names the file `path`.
    """
    content = value if type(value) is dict else attributes(value)
    if "idx2sym" not in content and "sym2idx" not in content and "vocab" in content:
        content = attributes(content["vocab"])
    try:
        symbols = _symbols(content)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} holds no usable vocabulary: {error}") from error
    counter = content.get("counter")
    counts = {name: n for name, n in counter.items() if type(name) is str} if type(counter) is dict else {}
    return LegacyVocabulary(
        symbols=symbols,
        counts={_repaired(name): n for name, n in counts.items() if type(n) is int},
        settings=_settings(content),
    )


def _symbols(content: Mapping[str, Any]) -> list[str]:
    listed, numbered = content.get("idx2sym"), content.get("sym2idx")
    # Some tokenizers of transformers 4 were saved without their list of symbols.
    if type(listed) is list and listed:
        symbols = listed
    elif type(numbered) is dict and numbered:
        symbols = _in_order(numbered)
    else:
        raise ValueError("neither idx2sym nor sym2idx is in it")
    if any(type(symbol) is not str for symbol in symbols):
        raise ValueError("some of its symbols are no text")
    symbols = [_repaired(symbol) for symbol in symbols]
    if len(set(symbols)) != len(symbols):
        raise ValueError("it gives a symbol two ids")
    return symbols


def _in_order(numbered: Mapping[Any, Any]) -> list[Any]:
    by_id = {index: symbol for symbol, index in numbered.items() if type(index) is int}
    if by_id.keys() != set(range(len(numbered))):
        raise ValueError(f"the ids of its {len(numbered):,} symbols are not 0 to {len(numbered) - 1:,}")
    return [by_id[index] for index in range(len(numbered))]


def _repaired(symbol: str) -> str:
    """Return a symbol as text, also where Python 2 wrote bytes that are not UTF-8; these are read as Latin-1."""
    try:
        symbol.encode("utf-8")
    except UnicodeEncodeError:
        return symbol.encode("utf-8", "surrogateescape" if _has_escaped_bytes(symbol) else "replace").decode("latin-1")
    return symbol


def _has_escaped_bytes(symbol: str) -> bool:
    return all("\udc80" <= letter <= "\udcff" for letter in symbol if "\ud800" <= letter <= "\udfff")


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: content[name] for name in PLAIN_SETTINGS if name in content}
    found |= {name: content[f"_{name}"] for name in TOKEN_SETTINGS if f"_{name}" in content}
    added = content.get("_added_tokens_decoder")
    if type(added) is dict:
        found["added_tokens"] = {_token(token): index for index, token in added.items() if type(index) is int}
    plain = {name: _plain(value) for name, value in found.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a setting as text, number, list of texts or table of ids; None if it is anything else."""
    if type(value) in (str, int, bool):
        return value
    if type(value) is list:
        return [_token(each) for each in value if _token(each)]
    if type(value) is dict:
        return {token: index for token, index in value.items() if token}
    return _token(value) or None


def _token(value: Any) -> str:
    """Return the text of a token, be it a text or the record of an AddedToken; empty for anything else."""
    if type(value) is str:
        return value
    content = attributes(value).get("content") if class_name(value).endswith("AddedToken") else None
    return content if type(content) is str else ""
