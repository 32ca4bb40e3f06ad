"""Vocabularies and corpora that transformers 4.37.2 wrote (oracles/write_legacy_vocabularies.py) give their symbols."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from transformer_xl.conversion.legacy_vocabulary import read_corpus, read_vocabulary

from .hostile_files import one_sentence_about

GOLDEN = Path(__file__).parents[1] / "golden" / "conversion"
EXPECTED = json.loads((GOLDEN / "vocabulary_expected.json").read_text(encoding="utf-8"))
FILES = sorted(path.name for path in GOLDEN.glob("vocabulary_*") if path.suffix in (".pkl", ".bin"))


@pytest.mark.parametrize("file", FILES)
def test_vocabularies_of_transformers_4_give_symbols_and_counts(file: str) -> None:
    vocabulary = read_vocabulary(GOLDEN / file)
    assert vocabulary.symbols == EXPECTED["symbols"]
    assert vocabulary.counts == EXPECTED["counts"]
    assert vocabulary.settings["lower_case"] is False
    assert vocabulary.settings["special"] == ["<eos>", "<unk>"]


def test_a_pickled_tokenizer_gives_its_settings_and_added_tokens() -> None:
    settings = read_vocabulary(GOLDEN / "vocabulary_with_added_token.pkl").settings
    assert settings["unk_token"] == "<unk>"
    assert settings["additional_special_tokens"] == ["<formula>"]
    assert settings["language"] == "en"
    assert settings["added_tokens"]["newword"] == 32


@pytest.mark.parametrize("layout", ["zip", "old"])
def test_a_corpus_of_transformers_4_gives_its_ids(layout: str) -> None:
    corpus = read_corpus(GOLDEN / f"corpus_{layout}.bin")
    assert corpus.dataset == "wt103"
    assert corpus.vocabulary is None
    assert {name: ids.tolist() for name, ids in corpus.splits.items()} == {
        name: EXPECTED[name] for name in ("train", "valid", "test")
    }


def pickled(folder: Path, value: Any) -> Path:
    path = folder / "vocab.pkl"
    path.write_bytes(pickle.dumps(value))
    return path


def test_a_vocabulary_without_its_list_is_put_in_order(tmp_path: Path) -> None:
    """Tokenizers of transformers 4.35 were saved like this."""
    assert read_vocabulary(pickled(tmp_path, {"sym2idx": OrderedDict(b=1, a=0), "idx2sym": []})).symbols == ["a", "b"]


def test_symbols_of_python_2_are_utf_8_or_else_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "cache.pkl"
    path.write_bytes(b"}U\x07idx2sym](U\x03\xe2\x82\xacU\x01\xe9U\x01aes.")
    assert read_vocabulary(path).symbols == ["€", "é", "a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"counter": {}}, "neither idx2sym nor sym2idx"),
        ({"idx2sym": ["a", "a"]}, "two ids"),
        ({"idx2sym": ["a", 3]}, "no text"),
        ({"sym2idx": {"a": 0, "b": 2}}, "ids of its 2 symbols are not 0 to 1"),
        (["a"], "neither idx2sym nor sym2idx"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(tmp_path: Path, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"vocab\.pkl' holds no usable vocabulary: .*{expected}"):
        read_vocabulary(pickled(tmp_path, value))


def test_text_and_json_give_symbols(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("<S> 10\nthe 7\n日本\n", encoding="utf-8")
    (tmp_path / "vocab.json").write_text(json.dumps({"the": 1, "<S>": 0, "日本": 2}), encoding="utf-8")
    for file in ("vocab.txt", "vocab.json"):
        assert read_vocabulary(tmp_path / file).symbols == ["<S>", "the", "日本"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocab.json", b"{"),
        ("vocab.json", b"3"),
        ("vocab.json", b"[" * 100_000),
        ("vocab.txt", b"\xff\xfe"),
        ("vocab.txt", b"\n"),
    ],
)
def test_broken_text_files_are_refused_by_name(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=file), one_sentence_about(tmp_path / file):
        read_vocabulary(tmp_path / file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for file in ("vocab.txt", "vocab.pkl"):
        with pytest.raises(FileNotFoundError, match=file):
            read_vocabulary(tmp_path / file)


def test_what_is_no_corpus_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocab\.pkl' holds no corpus"):
        read_corpus(pickled(tmp_path, {"idx2sym": ["a"]}))
