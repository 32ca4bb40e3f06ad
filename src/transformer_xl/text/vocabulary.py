"""The symbols of a text and their ids: characters, bytes or words."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Unit = Literal["char", "byte", "word", "bpe", "id"]
Ids = npt.NDArray[np.unsignedinteger[Any]]

UNITS: tuple[str, ...] = get_args(Unit)
COUNTED_UNITS = ("char", "byte", "word", "id")
UNIT_NAMES = {"char": "character", "byte": "byte", "word": "word", "bpe": "token", "id": "id"}
UNKNOWN = "<unk>"
UNKNOWN_SYMBOLS = (UNKNOWN, "<UNK>")
LINE_END = "<eos>"
BYTE_SYMBOLS = tuple(f"<0x{value:02X}>" for value in range(256))


class Vocabulary:
    """The list of symbols that a model knows, most frequent first; a symbol's place in it is its id.

    `unit` says what a symbol is. A "char" is one character of the text, a "byte" one byte of its UTF-8 form (all
    256 are always there), a "word" what stands between white space, with `line_end` for each line end, an "id" a whole
    number from 0 on, for what is no text; as text, ids are numbers with white space between them. Characters and words
    include `<unk>`, which stands for every symbol that is not in the list. With `lower_case`, words are put into small
    letters first.

    >>> vocabulary = Vocabulary.build("to be or not to be", "word")
    >>> vocabulary.decode(vocabulary.encode("be not or be"))
    'be not or be'
    """

    def __init__(
        self, unit: Unit, symbols: Sequence[str], *, line_end: str = LINE_END, lower_case: bool = False
    ) -> None:
        if unit not in COUNTED_UNITS:
            raise ValueError(f"unit is {unit!r}, but may be one of {', '.join(COUNTED_UNITS)}")
        self.unit = unit
        self.symbols = tuple(symbols)
        self.line_end = line_end
        self.lower_case = lower_case
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            raise ValueError("a vocabulary names each symbol once, but this list of symbols repeats some")
        if unit == "byte" and self.symbols != BYTE_SYMBOLS:
            raise ValueError("a vocabulary of bytes lists <0x00> to <0xFF> in this order, but this list is another one")
        if unit in ("char", "word") and self.unknown_id is None:
            raise ValueError(f"a vocabulary of unit {unit!r} needs the symbol {UNKNOWN}, but this list has none")

    @classmethod
    def build(cls, text: str, unit: Unit, min_count: int = 1) -> Vocabulary:
        """The vocabulary of a text: what occurs at least `min_count` times, most frequent first."""
        if unit == "byte":
            return cls(unit, BYTE_SYMBOLS)
        return cls.of_counts(Counter(split(text, unit)), unit, min_count)

    @classmethod
    def of_counts(
        cls,
        counts: Mapping[str, int],
        unit: Unit,
        min_count: int = 1,
        *,
        line_end: str = LINE_END,
        lower_case: bool = False,
    ) -> Vocabulary:
        """The vocabulary of counted characters or words: those counted `min_count` times, most frequent first."""
        always = {UNKNOWN, line_end} if unit == "word" else {UNKNOWN}
        kept = {symbol: count for symbol, count in counts.items() if count >= min_count or symbol in always}
        for symbol in always:
            kept.setdefault(symbol, 0)
        kept[UNKNOWN] += sum(counts.values()) - sum(kept.values())
        symbols = sorted(kept, key=lambda symbol: (-kept[symbol], symbol))
        return cls(unit, symbols, line_end=line_end, lower_case=lower_case)

    @classmethod
    def of_ids(cls, size: int) -> Vocabulary:
        """The vocabulary of the ids from 0 to `size` - 1."""
        return cls("id", [str(index) for index in range(size)])

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def unknown_id(self) -> int | None:
        """The id of `<unk>`; None for bytes and ids, where nothing is unknown."""
        if self.unit in ("byte", "id"):
            return None
        return next((self._ids[symbol] for symbol in UNKNOWN_SYMBOLS if symbol in self._ids), None)

    @property
    def line_end_id(self) -> int | None:
        """The id of a line end; None if no symbol stands for it."""
        if self.unit == "byte":
            return ord("\n")
        return self._ids.get("\n" if self.unit == "char" else self.line_end)

    def encode(self, text: str, strict: bool = False) -> Ids:
        """The ids of a text, in the smallest unsigned integer type that holds them all.

        A symbol that is not in the vocabulary becomes `<unk>`, or with `strict` a ValueError that names it.
        """
        if self.unit == "byte":
            return np.frombuffer(_bytes(text), dtype=np.uint8).copy()
        if self.unit == "char" and not strict:
            points = code_points(text)
            return self._id_of_code_point[np.minimum(points, len(self._id_of_code_point) - 1)]
        tokens = split(text, self.unit, self.line_end, self.lower_case)
        if strict or self.unit == "id":
            self._refuse_unknown(tokens)
        ids = map(self._ids.get, tokens, repeat(self.unknown_id))
        return np.fromiter(ids, dtype=np.min_scalar_type(len(self) - 1), count=len(tokens))

    @cached_property
    def _id_of_code_point(self) -> Ids:
        """The id of each character up to the highest that is known, and behind it that of all others, `<unk>`."""
        points = {ord(symbol): index for symbol, index in self._ids.items() if len(symbol) == 1}
        ids = np.full(max(points, default=0) + 2, self.unknown_id, dtype=np.min_scalar_type(len(self) - 1))
        ids[list(points)] = list(points.values())
        return ids

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
        elif self.unit in ("word", "id"):
            space = ""
            for index in ids:
                line_ends = self.symbols[index] == self.line_end
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
        from transformer_xl.text.units import byte_tokenizer, character_tokenizer_of, id_tokenizer, word_tokenizer_of

        tokenizer: PreTrainedTokenizerBase
        if self.unit == "byte":
            tokenizer = byte_tokenizer()
        elif self.unit == "id":
            tokenizer = id_tokenizer(len(self))
        elif self.unit == "char":
            tokenizer = character_tokenizer_of(self.symbols)
        else:
            tokenizer = word_tokenizer_of(self.symbols, self.line_end, self.lower_case)
        tokenizer.save_pretrained(folder)

    def _refuse_unknown(self, tokens: Sequence[str]) -> None:
        for position, token in enumerate(tokens):
            if self._ids.get(token, self.unknown_id) == self.unknown_id:
                name = UNIT_NAMES[self.unit]
                raise ValueError(
                    f"the {name} {token!r} at position {position} (the first is 0) is unknown: "
                    f"use the {len(self):,} {name}s of the training text, which the model's tokenizer lists"
                )


def split(text: str, unit: Unit, line_end: str = LINE_END, lower_case: bool = False) -> Sequence[str]:
    """The characters or words of a text, or the numbers in it."""
    if unit == "char":
        return text
    if unit == "id":
        return text.split()
    if lower_case:
        text = text.lower()
    return text.replace("\n", f" {line_end} ").split()


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The number of each character in Unicode."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _bytes(text: str) -> bytes:
    # A terminal hands over bytes that are not UTF-8 as surrogates; they become the bytes that they were.
    return text.encode("utf-8", "surrogateescape")
