"""Any tokenizer of transformers in the place of a vocabulary: byte pairs, and folders that were converted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transformer_xl.text.vocabulary import COUNTED_UNITS, Ids, Unit, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNDECODED = "\ufffd"
LINES_AT_ONCE = 10_000
LEGACY_FILES = ("vocab.json", "vocab.txt", "vocab.pkl", "vocab.bin")


class TokenizerVocabulary:
    """The symbols of a tokenizer, with the methods of `Vocabulary`.

    Args:
        tokenizer: A tokenizer of transformers.
        unit: What people call its symbols: "bpe" for byte pairs, "word" for the words of WikiText or Penn Treebank.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, unit: Unit = "bpe") -> None:
        self.tokenizer = tokenizer
        self.unit = unit

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown symbol; None if nothing is unknown."""
        unknown = self.tokenizer.unk_token_id
        return None if unknown is None else int(unknown)

    @property
    def line_end_id(self) -> int | None:
        """The id of a line end, which may stand before a text, else of `<eos>`; None if there is neither."""
        if self.unit != "word":
            ids = self.encode("\n")
            if len(ids) == 1 and ids[0] != self.unknown_id:
                return int(ids[0])
        end = self.tokenizer.eos_token_id
        return None if end is None else int(end)

    def encode(self, text: str, strict: bool = False) -> Ids:
        """The ids of a text, in the smallest unsigned integer type that holds them all.

        The text is encoded line by line, in parallel where the tokenizer can. With `strict` an unknown symbol is a
        ValueError that names it.
        """
        lines = text.splitlines(keepends=True)
        batches = (lines[i : i + LINES_AT_ONCE] for i in range(0, len(lines), LINES_AT_ONCE))
        rows = chain.from_iterable(self.tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in batches)
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.min_scalar_type(len(self) - 1))
        if strict and (unknown := np.flatnonzero(ids == self.unknown_id)).size and self.unknown_id is not None:
            raise ValueError(
                f"the symbol at position {unknown[0]} (the first is 0) of {text!r} is unknown: use the {len(self):,} "
                "symbols of the model's vocabulary"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids."""
        return str(self.tokenizer.decode(list(ids)))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The pieces of the text while the ids arrive; joined they are what `decode` gives."""
        seen: list[int] = []
        written = ""
        for index in ids:
            seen.append(int(index))
            text = self.decode(seen)
            # A character whose bytes have not all arrived is kept back.
            complete = text.rstrip(UNDECODED)
            yield complete[len(written) :]
            written = complete
        yield self.decode(seen)[len(written) :]

    def count_unknown(self, ids: Ids) -> int:
        """How many of the ids are unknown."""
        return 0 if self.unknown_id is None else int(np.count_nonzero(ids == self.unknown_id))

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer's files into a folder."""
        self.tokenizer.save_pretrained(folder)


def build_vocabulary(
    text: str, unit: Unit, min_count: int = 1, vocab_size: int = 0
) -> Vocabulary | TokenizerVocabulary:
    """The vocabulary of a text: its characters, bytes or words, or `vocab_size` byte pairs trained on it."""
    if unit != "bpe":
        return Vocabulary.build(text, unit, min_count)
    from transformer_xl.text.units import byte_pair_tokenizer

    return TokenizerVocabulary(byte_pair_tokenizer(text.splitlines(keepends=True), vocab_size))


def load_vocabulary(folder: str | Path) -> Vocabulary | TokenizerVocabulary:
    """The vocabulary in a model's folder, whether training, conversion or transformers wrote it.

    Raises:
        FileNotFoundError: The folder holds no tokenizer.
        ValueError: Its files cannot be read.
    """
    if not any(Path(folder, name).is_file() for name in ("tokenizer_config.json", *LEGACY_FILES)):
        raise FileNotFoundError(
            f"{str(folder)!r} holds no tokenizer, tokenizer_config.json is missing: give a folder that training or "
            "convert wrote"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        unit = tokenizer.init_kwargs.get("unit", "word")
        if unit not in COUNTED_UNITS:
            return TokenizerVocabulary(tokenizer, unit)
        if unit == "word" and not getattr(tokenizer, "already_split", False):
            return TokenizerVocabulary(tokenizer, "word")
        symbols = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        if unit == "word":
            return Vocabulary(unit, symbols, line_end=tokenizer.eos_token, lower_case=tokenizer.lower_case)
        return Vocabulary(unit, symbols)
    except Exception as error:  # The Rust library raises bare exceptions for broken files.
        raise ValueError(
            f"the tokenizer in {str(folder)!r} cannot be read ({error}): write the folder again"
        ) from error
