"""The symbols of a text and their ids: characters, bytes or words."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Unit = Literal["char", "byte", "word", "bpe"]
Ids = npt.NDArray[np.unsignedinteger[Any]]

UNITS: tuple[str, ...] = get_args(Unit)
COUNTED_UNITS = ("char", "byte", "word")
UNIT_NAMES = {"char": "character", "byte": "byte", "word": "word", "bpe": "token"}
UNKNOWN = "<unk>"
LINE_END = "<eos>"
BYTE_SYMBOLS = tuple(f"<0x{value:02X}>" for value in range(256))


class Vocabulary:
    """The list of symbols that a model knows, most frequent first; a symbol's place in it is its id.

    `unit` says what a symbol is. A "char" is one character of the text, a "byte" one byte of its UTF-8 form (all
    256 are always there), a "word" what stands between white space, with `<eos>` for each line end. Characters and
    words include `<unk>`, which stands for every symbol that is not in the list.

    >>> vocabulary = Vocabulary.build("to be or not to be", "word")
    >>> vocabulary.decode(vocabulary.encode("be not or be"))
    'be not or be'
    """

    def __init__(self, unit: Unit, symbols: Sequence[str]) -> None:
        if unit not in COUNTED_UNITS:
            raise ValueError(f"unit is {unit!r}, but may be one of {', '.join(COUNTED_UNITS)}")
        self.unit = unit
        self.symbols = tuple(symbols)
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            raise ValueError("a vocabulary names each symbol once, but this list of symbols repeats some")
        if unit == "byte" and self.symbols != BYTE_SYMBOLS:
            raise ValueError("a vocabulary of bytes lists <0x00> to <0xFF> in this order, but this list is another one")
        if unit != "byte" and UNKNOWN not in self._ids:
            raise ValueError(f"a vocabulary of unit {unit!r} needs the symbol {UNKNOWN}, but this list has none")

    @classmethod
    def build(cls, text: str, unit: Unit, min_count: int = 1) -> Vocabulary:
        """The vocabulary of a text: what occurs at least `min_count` times, most frequent first."""
        if unit == "byte":
            return cls(unit, BYTE_SYMBOLS)
        counts = Counter(_split(text, unit))
        always = {UNKNOWN, LINE_END} if unit == "word" else {UNKNOWN}
        kept = {symbol: count for symbol, count in counts.items() if count >= min_count or symbol in always}
        for symbol in always:
            kept.setdefault(symbol, 0)
        kept[UNKNOWN] += counts.total() - sum(kept.values())
        return cls(unit, sorted(kept, key=lambda symbol: (-kept[symbol], symbol)))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def unknown_id(self) -> int | None:
        """The id of `<unk>`; None for bytes, where nothing is unknown."""
        return self._ids.get(UNKNOWN)

    def encode(self, text: str, strict: bool = False) -> Ids:
        """The ids of a text, in the smallest unsigned integer type that holds them all.

        A symbol that is not in the vocabulary becomes `<unk>`, or with `strict` a ValueError that names it.
        """
        tokens = _split(text, self.unit)
        if strict:
            self._refuse_unknown(tokens)
        ids = map(self._ids.get, tokens, repeat(self.unknown_id))
        return np.fromiter(ids, dtype=np.min_scalar_type(len(self) - 1), count=len(tokens))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; words come back with single spaces, broken UTF-8 of bytes as the character U+FFFD."""
        return "".join(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The pieces of the text while the ids arrive; joined they are what `decode` gives."""
        if self.unit == "byte":
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            for index in ids:
                yield decoder.decode(bytes([index]))
            yield decoder.decode(b"", final=True)
        elif self.unit == "word":
            space = ""
            for index in ids:
                line_ends = self.symbols[index] == LINE_END
                yield "\n" if line_ends else space + self.symbols[index]
                space = "" if line_ends else " "
        else:
            for index in ids:
                yield self.symbols[index]

    def count_unknown(self, ids: Ids) -> int:
        """How many of the ids are `<unk>`."""
        return 0 if self.unknown_id is None else int(np.count_nonzero(ids == self.unknown_id))

    def save(self, folder: str | Path) -> None:
        """Writes a tokenizer with these symbols into a folder, where `AutoTokenizer` finds it."""
        from transformer_xl.text.units import byte_tokenizer, character_tokenizer_of, word_tokenizer_of

        makers = {"char": character_tokenizer_of, "word": word_tokenizer_of}
        tokenizer = byte_tokenizer() if self.unit == "byte" else makers[self.unit](self.symbols)
        tokenizer.save_pretrained(folder)

    def _refuse_unknown(self, tokens: Sequence[str]) -> None:
        for position, token in enumerate(tokens):
            if token not in self._ids or token == UNKNOWN:
                name = UNIT_NAMES[self.unit]
                raise ValueError(
                    f"the {name} {token!r} at position {position} (the first is 0) is unknown: "
                    f"use the {len(self):,} {name}s of the training text, which the model's tokenizer lists"
                )


def _split(text: str, unit: Unit) -> Sequence[str]:
    if unit == "char":
        return text
    if unit == "word":
        return text.replace("\n", f" {LINE_END} ").split()
    # A terminal hands over bytes that are not UTF-8 as surrogates; they become the bytes that they were.
    return [BYTE_SYMBOLS[value] for value in text.encode("utf-8", "surrogateescape")]
