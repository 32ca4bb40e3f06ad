"""The known sets: which files they are, how they are split, cased and ended, and how much they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transformer_xl.text.vocabulary import LINE_END, Unit

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

# Train, valid and test of a set that is published as one file of 100,000,000 bytes.
BYTES_OF_ONE_HUNDRED_MILLION: Mapping[Split, tuple[int, int]] = {
    "train": (0, 90_000_000),
    "valid": (90_000_000, 95_000_000),
    "test": (95_000_000, 100_000_000),
}


@dataclass(frozen=True)
class KnownSet:
    """How a known set is read, and what it must count then.

    Attributes:
        title: What people call it.
        files: For each split, patterns of its files in the order of preference; they may lie in the folder, there with
            `.gz` behind their names, or in a `.zip` as it was published.
        unit: What a symbol is.
        line_end: What stands for a line end, when symbols are words.
        lower_case: Whether words are put into small letters.
        stream: How training reads it.
        shares: The bytes of each split, where all are in one file.
        without_line_ends: Whether line ends are left out.
        vocabulary_file: A file with the vocabulary, where the set brings one.
        counts: Symbols of each split, line ends included.
        num_symbols: Different symbols, in the vocabulary if it is of words and in the training text otherwise.
    """

    title: str
    files: Mapping[Split, tuple[str, ...]]
    unit: Unit
    counts: Mapping[Split, int]
    num_symbols: int
    line_end: str = LINE_END
    lower_case: bool = False
    stream: Literal["ordered", "sentences"] = "ordered"
    shares: Mapping[Split, tuple[int, int]] = field(default_factory=dict)
    without_line_ends: bool = False
    vocabulary_file: str | None = None


def _one_file(name: str) -> Mapping[Split, tuple[str, ...]]:
    return dict.fromkeys(SPLITS, (name,))


def _wikitext() -> Mapping[Split, tuple[str, ...]]:
    return {split: (f"wiki.{split}.tokens", f"{split}.txt") for split in SPLITS}


# Counts: Merity et al. 2016 (WikiText), Mikolov's distribution (Penn Treebank), and Chelba et al. 2013 (One Billion
# Words: words and sentences). The authors of Transformer-XL read enwik8 line by line and lose its line ends, so that
# their bits per character are bits per byte that is not a line end.
KNOWN_SETS: dict[str, KnownSet] = {
    "wt103": KnownSet(
        "WikiText-103",
        _wikitext(),
        "word",
        {"train": 103_227_021, "valid": 217_646, "test": 245_569},
        267_735,
    ),
    "wt2": KnownSet(
        "WikiText-2",
        _wikitext(),
        "word",
        {"train": 2_088_628, "valid": 217_646, "test": 245_569},
        33_278,
    ),
    "ptb": KnownSet(
        "Penn Treebank",
        {split: (f"ptb.{split}.txt", f"{split}.txt") for split in SPLITS},
        "word",
        {"train": 929_589, "valid": 73_760, "test": 82_430},
        10_000,
        lower_case=True,
    ),
    "enwik8": KnownSet(
        "enwik8, every byte",
        _one_file("enwik8"),
        "byte",
        {"train": 90_000_000, "valid": 5_000_000, "test": 5_000_000},
        205,
        shares=BYTES_OF_ONE_HUNDRED_MILLION,
    ),
    "enwik8-authors": KnownSet(
        "enwik8 without its line ends",
        _one_file("enwik8"),
        "byte",
        {"train": 88_982_818, "valid": 4_945_742, "test": 4_943_417},
        204,
        shares=BYTES_OF_ONE_HUNDRED_MILLION,
        without_line_ends=True,
    ),
    "text8": KnownSet(
        "text8",
        _one_file("text8"),
        "char",
        {"train": 90_000_000, "valid": 5_000_000, "test": 5_000_000},
        27,
        shares=BYTES_OF_ONE_HUNDRED_MILLION,
    ),
    "lm1b": KnownSet(
        "One Billion Words",
        {
            "train": ("**/training-monolingual.tokenized.shuffled/news.en-*", "news.en-*"),
            "valid": ("**/heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050", "valid.txt"),
            "test": ("**/heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050", "test.txt"),
        },
        "word",
        {"train": 768_648_884 + 30_301_028, "valid": 159_658, "test": 159_658},
        793_471,
        line_end="<S>",
        stream="sentences",
        vocabulary_file="1b_word_vocab.txt",
    ),
}
