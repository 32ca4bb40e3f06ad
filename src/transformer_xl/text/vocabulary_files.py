"""The symbols of a vocabulary in the order of their ids, read from and written to files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_xl.conversion.legacy_vocabulary import LegacyVocabulary


def read_symbols(path: str | Path) -> list[str]:
    """The symbols of a vocabulary file: `.json` (symbol: id), `.txt` (first word of each line), or an old pickle."""
    suffix = _existing(path).suffix
    if suffix == ".json":
        return _symbols_of_json(path)
    if suffix == ".txt":
        return _symbols_of_text(path)
    return list(read_legacy_vocabulary(path).symbols)


def read_counts(path: str | Path) -> dict[str, int]:
    """How often each symbol was counted."""
    counts = _read_json(path)
    if not isinstance(counts, dict) or not all(isinstance(count, int) for count in counts.values()):
        raise ValueError(f"{str(path)!r} does not map symbols to counts: give the file that save_vocabulary wrote")
    return counts


def read_legacy_vocabulary(path: str | Path) -> LegacyVocabulary:
    """What a `vocab.pkl` or `vocab.bin` holds, read without executing any of it."""
    # Pickles are opened in one place, which is on a higher floor.
    from transformer_xl.conversion.legacy_vocabulary import read_vocabulary

    return read_vocabulary(_existing(path))


def write_symbols(symbols: Sequence[str], path: str | Path) -> None:
    """Write symbols to a file that `read_symbols` reads: `.txt` as lines, anything else as JSON."""
    if Path(path).suffix == ".txt":
        content = "".join(f"{symbol}\n" for symbol in symbols)
    else:
        content = _json({symbol: index for index, symbol in enumerate(symbols)})
    Path(path).write_text(content, encoding="utf-8", newline="\n")


def write_counts(counts: Mapping[str, int], path: str | Path) -> None:
    """Write counts to a file that `read_counts` reads."""
    Path(path).write_text(_json(dict(counts)), encoding="utf-8", newline="\n")


def fits_into_lines(symbols: Sequence[str]) -> bool:
    """Whether symbols can be written as text, one on each line: none is empty or has white space in it."""
    return all(symbol.split() == [symbol] for symbol in symbols)


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file: give a vocab.json, vocab.txt, vocab.pkl or vocab.bin")
    return Path(path)


def _json(content: Mapping[str, int]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=0) + "\n"


def _read_json(path: str | Path) -> Any:
    try:
        return json.loads(_existing(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is not a JSON file in UTF-8 ({error}): give one that was saved whole"
        ) from error


def _symbols_of_json(path: str | Path) -> list[str]:
    ids = _read_json(path)
    if not isinstance(ids, dict) or sorted(map(str, ids.values())) != sorted(map(str, range(len(ids)))):
        raise ValueError(f"{str(path)!r} does not map symbols to the ids from 0 on, each once: give a vocab.json")
    return sorted(ids, key=ids.__getitem__)


def _symbols_of_text(path: str | Path) -> list[str]:
    symbols: dict[str, None] = {}
    try:
        with Path(path).open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                words = line.split()
                if not words:
                    raise ValueError(f"line {number} of {str(path)!r} is empty: give one symbol on each line")
                symbols[words[0]] = None
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not text in UTF-8 ({error.reason}): save it as UTF-8") from error
    return list(symbols)
