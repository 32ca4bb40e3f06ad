"""Writes tests/golden/conversion/vocabulary_*: vocabularies and corpora as transformers 4.37.2 pickles them.

Run by the environment that README.md beside this file describes: `python tests/oracles/write_legacy_vocabularies.py`.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "conversion"
TEXT = """The cat sat on the mat . <unk> the dog did not sit .
Zoë paid 1 @,@ 000 € for 2 @.@ 5 kilos of naïve 日本 tea !
the end of the line
"""


def build_tokenizer(folder: Path) -> Any:
    """A tokenizer of transformers 4.37.2, its vocabulary built from a text as its methods do it."""
    from transformers import TransfoXLTokenizer

    text = folder / "train.txt"
    text.write_text(TEXT, encoding="utf-8")
    tokenizer = TransfoXLTokenizer(special=["<eos>", "<unk>"], lower_case=False, min_freq=1)
    # The file is split on white space: `count_file` would run the Moses tokenizer over it once more.
    tokenizer.count_sents([[*line.split(), "<eos>"] for line in TEXT.splitlines()])
    tokenizer.build_vocab()
    return tokenizer


def plain_vocabulary(tokenizer: Any) -> dict[str, Any]:
    """What the published vocab.pkl holds: the attributes of the original code's Vocab."""
    names = ("counter", "special", "min_freq", "max_size", "lower_case", "delimiter", "vocab_file")
    names += ("idx2sym", "sym2idx", "eos_idx", "unk_idx")
    return {name: getattr(tokenizer, name) for name in names}


def main() -> None:
    """Writes every file."""
    os.environ["TRUST_REMOTE_CODE"] = "True"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tokenizer(Path(folder))
        tokenizer.save_vocabulary(str(FOLDER), "vocabulary_of_tokenizer")
        tokenizer.add_tokens(["newword"])
        tokenizer.save_vocabulary(str(FOLDER), "vocabulary_with_added_token")
    for name in ("of_tokenizer", "with_added_token"):
        (FOLDER / f"vocabulary_{name}-vocab.pkl").replace(FOLDER / f"vocabulary_{name}.pkl")
    vocabulary = plain_vocabulary(tokenizer)
    for protocol in (0, 2, 4):
        (FOLDER / f"vocabulary_protocol_{protocol}.pkl").write_bytes(pickle.dumps(vocabulary, protocol))
    encoded = [tokenizer.convert_to_tensor([*line.split(), "<eos>"]) for line in TEXT.splitlines()]
    ids = torch.cat(encoded)
    corpus = {"dataset": "wt103", "train": ids, "valid": ids[:7].numpy(), "test": ids[3:9].tolist()}
    for layout, zipped in (("zip", True), ("old", False)):
        torch.save(vocabulary, FOLDER / f"vocabulary_{layout}.bin", _use_new_zipfile_serialization=zipped)
        torch.save(corpus, FOLDER / f"corpus_{layout}.bin", _use_new_zipfile_serialization=zipped)
    expected = {
        "symbols": tokenizer.idx2sym,
        "counts": dict(tokenizer.counter),
        "train": ids.tolist(),
        "valid": ids[:7].tolist(),
        "test": ids[3:9].tolist(),
    }
    (FOLDER / "vocabulary_expected.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")
    for path in sorted(FOLDER.glob("*")):
        print(f"{path.stat().st_size:7,d} bytes  {path.name}")


if __name__ == "__main__":
    main()
