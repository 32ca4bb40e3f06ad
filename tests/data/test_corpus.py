from __future__ import annotations

import pytest

from transformer_xl.data.corpus import read_corpus, read_text
from transformer_xl.data.text_settings import TextSettings


def test_the_builtin_text_is_split_by_position_without_gap_or_overlap():
    train, valid, test = (read_text("builtin:shakespeare", split) for split in ("train", "valid", "test"))
    total = len(train) + len(valid) + len(test)
    assert total > 1_000_000
    assert len(train) == pytest.approx(0.9 * total, abs=1)
    assert len(valid) == pytest.approx(0.05 * total, abs=1)


def test_the_last_part_of_a_file_is_held_out(tmp_path):
    text = "".join(chr(ord("a") + i % 26) for i in range(1000))
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    corpus = read_corpus(TextSettings(str(path)))
    assert corpus.vocabulary.decode(corpus.train) == text[:950]
    assert corpus.vocabulary.decode(corpus.valid) == text[950:]


def test_the_vocabulary_is_built_from_the_training_text_alone(tmp_path):
    (tmp_path / "train.txt").write_text("abc", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("abd", encoding="utf-8")
    corpus = read_corpus(TextSettings(str(tmp_path / "train.txt"), str(tmp_path / "valid.txt")))
    assert "d" not in corpus.vocabulary.symbols
    assert corpus.vocabulary.count_unknown(corpus.valid) == 1


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
