from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from transformer_xl.data import encoding, sources
from transformer_xl.data.corpus import encode_corpus, is_corpus, open_corpus, open_or_encode, read_text
from transformer_xl.data.text_settings import TextSettings
from transformer_xl.text.vocabulary import Vocabulary

LINES = "".join(f"line {i} says naïve things like {i * i}\n" for i in range(300))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def encoded(path, out, **settings):
    return encode_corpus(TextSettings(str(path), **settings), out)


# Texts


def test_the_builtin_text_is_split_by_position_without_gap_or_overlap():
    train, valid, test = (read_text("builtin:shakespeare", split) for split in ("train", "valid", "test"))
    total = len(train) + len(valid) + len(test)
    assert total > 1_000_000
    assert len(train) == pytest.approx(0.9 * total, abs=1)
    assert len(valid) == pytest.approx(0.05 * total, abs=1)


def test_a_file_is_read_to_the_byte(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"a\r\nb\rc\n")
    assert read_text(str(tmp_path / "text.txt")) == "a\r\nb\rc\n"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file '.*none\.txt'"):
        read_text(str(tmp_path / "none.txt"))


def test_a_folder_is_not_a_text(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_text(str(tmp_path))


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="is empty"):
        read_text(str(tmp_path / "empty.txt"))


def test_bytes_that_are_not_utf8_are_named_with_their_offset(tmp_path):
    (tmp_path / "latin.txt").write_bytes("déjà".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8: the byte 0xe9 at offset 1"):
        read_text(str(tmp_path / "latin.txt"))


def test_an_unknown_builtin_text_is_named():
    with pytest.raises(ValueError, match="no built-in text 'goethe'"):
        read_text("builtin:goethe")


# What is encoded


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
@pytest.mark.parametrize("stream", ["ordered", "sentences", "documents"])
def test_the_ids_are_those_of_the_whole_text(unit, stream, text, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 1000)
    corpus = encoded(text, tmp_path / "corpus", unit=unit, stream=stream, vocab_size=300, valid=str(text))
    assert corpus.train.tolist() == corpus.vocabulary.encode(LINES).tolist()
    if stream == "ordered":
        assert not corpus.starts
    else:
        starts = corpus.starts["train"].tolist()
        assert len(starts) == (300 if stream == "sentences" else 1)
        assert starts == sorted(set(starts))
        assert corpus.vocabulary.decode(corpus.train[starts[-1] :]).startswith(
            "line 299" if stream == "sentences" else "line 0"
        )


@pytest.mark.parametrize("unit", ["char", "word"])
def test_vocabulary_and_ids_do_not_depend_on_how_many_processes_work(unit, text, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 500)
    settings = TextSettings(str(text), unit=unit)
    corpora = [encode_corpus(settings, tmp_path / str(number), num_processes=number) for number in (1, 2)]
    assert corpora[0].manifest.checksum == corpora[1].manifest.checksum


def test_bytes_that_are_not_utf8_are_named_from_other_processes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 500)
    (tmp_path / "text.txt").write_bytes(LINES.encode() + b"caf\xe9\n")
    message = f"0xe9 at offset {len(LINES.encode()) + 3} does not belong there"
    with pytest.raises(ValueError, match=message):
        encode_corpus(TextSettings(str(tmp_path / "text.txt")), tmp_path / "corpus", num_processes=2)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_bytes_may_be_of_any_kind(tmp_path):
    content = bytes(range(256)) * 10
    (tmp_path / "file").write_bytes(content)
    corpus = encoded(tmp_path / "file", tmp_path / "corpus", unit="byte", valid=str(tmp_path / "file"))
    assert bytes(corpus.train) == content


def test_the_manifest_counts_what_is_in_the_text(tmp_path):
    (tmp_path / "train.txt").write_text("a b\nb\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("ä ß b\n", encoding="utf-8")
    corpus = encoded(tmp_path / "train.txt", tmp_path / "corpus", unit="word", valid=str(tmp_path / "valid.txt"))
    counts = corpus.manifest.splits["valid"]
    assert (counts.tokens, counts.unknown, counts.symbols) == (4, 2, 3)
    assert (counts.bytes, counts.characters, counts.words) == (8, 6, 3)


@pytest.mark.parametrize(("size", "dtype"), [(200, np.uint8), (300, np.uint16), (70_000, np.uint32)])
def test_ids_take_the_smallest_type_that_fits(size, dtype, tmp_path):
    (tmp_path / "ids.txt").write_text(f"0 {size - 1}")
    corpus = encoded(tmp_path / "ids.txt", tmp_path / "corpus", unit="id", valid=str(tmp_path / "ids.txt"))
    assert corpus.train.dtype == dtype
    assert corpus.train.tolist() == [0, size - 1]


def test_the_last_part_of_a_file_is_held_out(tmp_path):
    letters = "".join(chr(ord("a") + i % 26) for i in range(1000))
    (tmp_path / "text.txt").write_text(letters, encoding="utf-8")
    corpus = encoded(tmp_path / "text.txt", tmp_path / "corpus")
    assert corpus.vocabulary.decode(corpus.train) == letters[:950]
    assert corpus.vocabulary.decode(corpus.valid) == letters[950:]


def test_words_are_held_out_by_whole_lines(text, tmp_path):
    corpus = encoded(text, tmp_path / "corpus", unit="word")
    held_out = corpus.vocabulary.decode(corpus.valid).splitlines()
    assert 10 <= len(held_out) <= 20
    assert all(line.startswith("line ") for line in held_out)


def test_the_vocabulary_is_built_from_the_training_text_alone(tmp_path):
    (tmp_path / "train.txt").write_text("abc", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("abd", encoding="utf-8")
    corpus = encoded(tmp_path / "train.txt", tmp_path / "corpus", valid=str(tmp_path / "valid.txt"))
    assert "d" not in corpus.vocabulary.symbols
    assert corpus.vocabulary.count_unknown(corpus.valid) == 1


def test_a_vocabulary_of_ones_own_is_used_if_its_unit_is_the_same(text, tmp_path):
    Vocabulary.build("line says <unk>\n", "word").save(tmp_path / "tokenizer")
    settings = {"vocabulary": str(tmp_path / "tokenizer"), "valid": str(text)}
    corpus = encoded(text, tmp_path / "corpus", unit="word", **settings)
    assert len(corpus.vocabulary) == 4
    assert corpus.manifest.splits["train"].unknown == 300 * 5
    with pytest.raises(ValueError, match=r"unit is 'char', but the vocabulary in .* is one of unit 'word'"):
        encoded(text, tmp_path / "other", **settings)


def test_standard_input_is_a_text_and_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LINES.encode())))
    corpus = encoded("-", tmp_path / "corpus", unit="word")
    assert LINES.startswith(corpus.vocabulary.decode(corpus.train))
    assert len(corpus.train) + len(corpus.valid) == len(LINES.split()) + LINES.count("\n")
    assert {path.name for path in (tmp_path / "corpus").iterdir()} == {
        "corpus.json", "train.ids.npy", "valid.ids.npy", "tokenizer_config.json", "vocab.json", "vocab.txt",
    }  # fmt: skip


def test_standard_input_can_be_named_once(tmp_path):
    with pytest.raises(ValueError, match="named more than once"):
        encoded("-", tmp_path / "corpus", valid="-")


# Files


def test_an_opened_corpus_is_the_encoded_one_and_stays_on_disk(text, tmp_path):
    one = encoded(text, tmp_path / "corpus", unit="word", stream="sentences")
    other = open_corpus(tmp_path / "corpus", verify=True)
    assert isinstance(other.train, np.memmap)
    assert np.array_equal(one.train, other.train)
    assert np.array_equal(one.starts["valid"], other.starts["valid"])
    assert one.manifest == other.manifest
    assert one.vocabulary.symbols == other.vocabulary.symbols


def test_the_checksum_names_the_content(text, tmp_path):
    def checksum(name, **settings):
        return encoded(text, tmp_path / name, **settings).manifest.checksum

    assert checksum("one") == checksum("two")
    changed = {
        checksum("three", stream="sentences"),
        checksum("four", min_count=1_000),
        checksum("five", valid=str(text)),
    }
    assert len({checksum("six"), *changed}) == 4


def test_settings_that_name_a_corpus_open_it(text, tmp_path):
    assert not is_corpus(tmp_path)
    one = open_or_encode(TextSettings(str(text)), tmp_path / "corpus")
    other = open_or_encode(TextSettings(str(tmp_path / "corpus")), tmp_path / "never")
    assert one.manifest == other.manifest
    assert not (tmp_path / "never").exists()


def test_a_corpus_is_no_text(text, tmp_path):
    encoded(text, tmp_path / "corpus")
    with pytest.raises(ValueError, match="is an encoded corpus"):
        encoded(text, tmp_path / "other", valid=str(tmp_path / "corpus"))


def test_a_folder_with_content_is_left_alone(text, tmp_path):
    with pytest.raises(FileExistsError, match="is there already"):
        encoded(text, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_corpus_that_was_not_written_to_the_end_is_never_there_and_is_cleared_away(text, tmp_path):
    program = (
        "import os, sys\n"
        "from transformer_xl.data import corpus\n"
        "from transformer_xl.data.manifest import Manifest\n"
        "Manifest.save = lambda self, folder: os._exit(9)\n"
        "corpus.encode_corpus(corpus.TextSettings(sys.argv[1]), sys.argv[2])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(text), str(tmp_path / "corpus")])
    assert killed.returncode == 9
    (leftover,) = tmp_path.glob(".corpus.*.partial")
    assert (leftover / "train.ids.npy").is_file()
    with pytest.raises(FileNotFoundError, match=r"is no encoded corpus, corpus\.json is missing"):
        open_corpus(leftover)
    with pytest.raises(FileNotFoundError, match="is no encoded corpus"):
        open_corpus(tmp_path / "corpus")
    encoded(text, tmp_path / "corpus")
    assert not leftover.exists()


def damage(path, content=None):
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.ids.npy", None, r"train\.ids\.npy' cannot be opened"),
        ("train.ids.npy", b"short", r"train\.ids\.npy' cannot be opened"),
        ("corpus.json", b"{", r"corpus\.json' cannot be read"),
        ("corpus.json", b'{"format": 7}', "its format is 7, but 1 is the one known here"),
        ("tokenizer.json", b"{}", "the tokenizer in the corpus .* is not the one that it was encoded with"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_named(name, content, message, text, tmp_path):
    encoded(text, tmp_path / "corpus")
    damage(tmp_path / "corpus" / name, content)
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path / "corpus")


def test_a_file_of_another_length_is_named(text, tmp_path):
    encoded(text, tmp_path / "corpus")
    np.save(tmp_path / "corpus" / "train.ids.npy", np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match=r"holds uint8 of shape \[5\], but the manifest says uint8 of shape"):
        open_corpus(tmp_path / "corpus")


def test_numbers_of_the_manifest_cannot_be_changed_unseen(text, tmp_path):
    encoded(text, tmp_path / "corpus")
    path = tmp_path / "corpus" / "corpus.json"
    path.write_text(path.read_text().replace('"unknown": 0', '"unknown": 1'))
    with pytest.raises(ValueError, match="is not as it was written"):
        open_corpus(tmp_path / "corpus")


def test_a_changed_id_is_found_by_its_checksum(text, tmp_path):
    encoded(text, tmp_path / "corpus")
    path = tmp_path / "corpus" / "train.ids.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_corpus(tmp_path / "corpus")
    with pytest.raises(ValueError, match=r"train\.ids\.npy in the corpus .* has changed"):
        open_corpus(tmp_path / "corpus", verify=True)


def test_a_corpus_without_a_test_text_says_so(text, tmp_path):
    with pytest.raises(ValueError, match="the corpus has no test text"):
        encoded(text, tmp_path / "corpus").ids("test")


def test_settings_name_one_text_to_learn_from():
    with pytest.raises(ValueError, match="train and dataset are both missing"):
        TextSettings()
    with pytest.raises(ValueError, match="give one of the two"):
        TextSettings("text.txt", dataset="ptb")
    with pytest.raises(ValueError, match="data is 'folder', but says where a known set lies"):
        TextSettings("text.txt", data="folder")


def test_a_known_set_brings_its_settings_and_others_may_be_given():
    settings = TextSettings(dataset="lm1b")
    assert (settings.unit, settings.stream, settings.lower_case) == ("word", "sentences", False)
    assert TextSettings(dataset="ptb").lower_case
    assert TextSettings(dataset="wt103", unit="byte").unit == "byte"
    assert replace(TextSettings("text.txt"), min_count=2).unit == "char"


def test_this_process_may_use_at_least_one_core():
    assert 1 <= encoding.cores() <= (os.cpu_count() or 1)
