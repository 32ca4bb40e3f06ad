"""The manifest of a corpus: what its files hold, in numbers and checksums."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from transformer_xl.data.datasets import Split
from transformer_xl.data.text_settings import StreamKind
from transformer_xl.text.vocabulary import Unit

MANIFEST_FILE = "corpus.json"
FORMAT = 1


@dataclass(frozen=True)
class SplitManifest:
    """What a split holds.

    Attributes:
        tokens: Its ids.
        unknown: Those of them that are `<unk>`.
        symbols: The different ones among them.
        bytes: Bytes of its text; of arrays of ids 0, as are characters and words.
        characters: Characters of its text.
        words: Words of its text, which stand between white space.
        pieces: Its sentences or documents, if the corpus tells them apart.
        checksums: That of each of its files.
    """

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
    """What a corpus holds.

    Attributes:
        unit: What a symbol is.
        vocab_size: Symbols in the vocabulary.
        dtype: Type of the ids on disk.
        stream: Whether sentences or documents are told apart.
        begin: The id that is read before a text; None for none.
        dataset: The known set that it was made of.
        vocabulary_checksum: That of the tokenizer's files.
        splits: What each split holds.
    """

    unit: Unit
    vocab_size: int
    dtype: str
    stream: StreamKind
    begin: int | None
    dataset: str | None
    vocabulary_checksum: str
    splits: dict[Split, SplitManifest]

    @property
    def checksum(self) -> str:
        """One string for all that the corpus holds; of two corpora that differ in anything, it differs."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `corpus.json` into a folder."""
        content = {"format": FORMAT, "checksum": self.checksum, **asdict(self)}
        (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a corpus.

    Raises:
        FileNotFoundError: The folder is no corpus, or is one that was not written to its end.
        ValueError: The manifest is not as it was written.
    """
    path = Path(folder, MANIFEST_FILE)
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is no encoded corpus, {MANIFEST_FILE} is missing: give a folder that "
            "`transformer-xl encode` wrote to the end"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (number := content.pop("format")) != FORMAT:
            raise ValueError(f"its format is {number}, but {FORMAT} is the one known here")
        checksum = content.pop("checksum")
        content["splits"] = {split: SplitManifest(**counts) for split, counts in content["splits"].items()}
        manifest = Manifest(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}): encode the text again") from error
    if manifest.checksum != checksum:
        raise ValueError(f"{str(path)!r} is not as it was written: encode the text again")
    return manifest
