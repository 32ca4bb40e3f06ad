"""What is read, what a symbol of it is, and how it is laid out: every setting with its sentence and its range.

Nothing here imports torch: the command line builds its options from these fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from transformer_xl.data.datasets import KNOWN_SETS
from transformer_xl.setting_fields import check, setting
from transformer_xl.text.vocabulary import UNITS, Unit

StreamKind = Literal["ordered", "sentences", "documents"]
STREAM_KINDS: tuple[str, ...] = get_args(StreamKind)

SOURCES = (
    "UTF-8 files (a name, a pattern like 'books/*.txt', also .gz), - for standard input, .jsonl, .parquet or .arrow "
    "tables, .npy or .safetensors arrays of ids, or builtin:shakespeare"
)


@dataclass(frozen=True)
class TextSettings:
    """What is read, what a symbol of it is, and how it is laid out."""

    train: str | None = setting(None, f"text to learn from: {SOURCES}; or the folder of an encoded corpus")
    valid: str | None = setting(
        None, "text to validate on, given as for train; without it, the last 5 % of the training text"
    )
    test: str | None = setting(None, "text for the last test, given as for train")
    dataset: str | None = setting(
        None, f"a known set in place of train, valid and test ({', '.join(KNOWN_SETS)}); data says where it lies"
    )
    data: str | None = setting(None, "folder with the files of the known set, as they were published")
    unit: Unit = setting(
        None,
        "what the model reads and writes one at a time (char, or that of the known set)",
        choices=UNITS,
        fixed=True,
    )
    vocab_size: int | None = setting(
        None,
        "symbols of a vocabulary of byte pairs (8,000), or of ids (one more than the largest)",
        at_least=1,
        fixed=True,
    )
    min_count: int = setting(
        1, "symbols that occur less often in the training text become <unk>", at_least=1, fixed=True
    )
    lower_case: bool = setting(None, "put words into small letters (no, or as the known set is published)", fixed=True)
    vocabulary: str | None = setting(
        None, "folder with the tokenizer to encode with, rather than a vocabulary of the training text", fixed=True
    )
    field: str = setting("text", "name of the column with the text in .jsonl, .parquet and .arrow files")
    stream: StreamKind = setting(
        None,
        "how training reads the text: ordered, as one text; sentences, as lines that are shuffled each epoch; "
        "documents, as files or rows of a table that are shuffled each epoch, each with a memory of its own (ordered, "
        "or as is usual for the known set)",
        choices=STREAM_KINDS,
        fixed=True,
    )
    keep_memory: bool = setting(
        True, "sentences: keep the memory from one to the next, rather than begin anew with each"
    )
    begin: int | None = setting(
        None, "the id that is read before a text, so that its first symbol is predicted too (a line end)", at_least=0
    )
    varlen: bool = setting(False, "ordered: draw the length of each segment anew, around the segment length")
    ext_len: int = setting(0, "ordered: symbols before each segment that are read again with it", at_least=0)

    def __post_init__(self) -> None:
        if self.dataset is not None and self.dataset not in KNOWN_SETS:
            raise ValueError(f"there is no known set {self.dataset!r}: the known ones are {', '.join(KNOWN_SETS)}")
        if (self.train is None) == (self.dataset is None):
            raise ValueError(
                "train and dataset are both missing: give a text to learn from, or a known set and where it lies"
                if self.train is None
                else f"train is {self.train!r} and dataset is {self.dataset!r}: give one of the two"
            )
        if self.data is not None and self.dataset is None:
            raise ValueError(f"data is {self.data!r}, but says where a known set lies: give dataset too")
        known = None if self.dataset is None else KNOWN_SETS[self.dataset]
        usual = {
            "unit": known.unit if known else "char",
            "lower_case": known.lower_case if known else False,
            "stream": known.stream if known else "ordered",
        }
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check(self)
