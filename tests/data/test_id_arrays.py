from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from transformer_xl.data import id_arrays
from transformer_xl.data.corpus import encode_corpus
from transformer_xl.data.text_settings import TextSettings


def encoded(path, out, **settings):
    return encode_corpus(TextSettings(str(path), unit="id", **settings), out)


def test_ids_are_the_symbols_and_the_vocabulary_is_as_large_as_they_need(tmp_path):
    ids = np.arange(1000) % 300
    np.save(tmp_path / "ids.npy", ids)
    corpus = encoded(tmp_path / "ids.npy", tmp_path / "corpus")
    assert len(corpus.vocabulary) == 300
    assert corpus.train.dtype == np.uint16
    assert np.concatenate([corpus.train, corpus.valid]).tolist() == ids.tolist()
    assert len(corpus.valid) == 50


def test_each_row_is_a_document(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(40).reshape(10, 4))
    corpus = encoded(tmp_path / "ids.npy", tmp_path / "corpus", stream="documents", valid=str(tmp_path / "ids.npy"))
    assert corpus.starts["train"].tolist() == list(range(0, 40, 4))
    assert corpus.train.tolist() == list(range(40))


def test_documents_of_a_safetensors_file_start_where_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(id_arrays, "IDS_AT_ONCE", 7)
    save_file({"ids": np.arange(60, dtype=np.int16), "starts": np.array([0, 5, 30, 58])}, tmp_path / "ids.safetensors")
    corpus = encoded(tmp_path / "ids.safetensors", tmp_path / "corpus", stream="documents")
    assert (corpus.train.tolist(), corpus.starts["train"].tolist()) == (list(range(58)), [0, 5, 30])
    assert (corpus.valid.tolist(), corpus.starts["valid"].tolist()) == ([58, 59], [0])


def test_several_files_follow_each_other_and_each_starts_a_document(tmp_path):
    for name, first in (("a", 0), ("b", 30)):
        np.save(tmp_path / f"{name}.npy", np.arange(first, first + 30))
    corpus = encoded(tmp_path / "*.npy", tmp_path / "c", stream="documents", valid=str(tmp_path / "a.npy"))
    assert (corpus.train.tolist(), corpus.starts["train"].tolist()) == (list(range(60)), [0, 30])


def test_ids_may_be_written_as_numbers(tmp_path):
    (tmp_path / "ids.txt").write_text("60 62\n64 127\n" * 50)
    corpus = encoded(tmp_path / "ids.txt", tmp_path / "corpus")
    assert len(corpus.vocabulary) == 128
    assert corpus.train[:4].tolist() == [60, 62, 64, 127]


@pytest.mark.parametrize(
    ("array", "settings", "message"),
    [
        (np.array([0, 5]), {"vocab_size": 5}, "holds the id 5, but ids are 0 to 4 here"),
        (np.array([0, -1, 3]), {}, "holds the id -1, but ids are 0 to 3 here"),
        (np.array([0.5]), {}, r"holds float64 of shape \[1\], but ids are whole numbers"),
        (np.zeros((2, 2, 2), int), {}, r"of shape \[2, 2, 2\], but ids"),
        (np.array([0, 1]), {"begin": 2}, "begin is 2, but ids are 0 to 1 here"),
    ],
    ids=["too large", "negative", "fractions", "three axes", "begin"],
)
def test_what_is_no_array_of_ids_is_refused(array, settings, message, tmp_path):
    np.save(tmp_path / "ids.npy", array)
    with pytest.raises(ValueError, match=message):
        encoded(tmp_path / "ids.npy", tmp_path / "corpus", valid=str(tmp_path / "ids.npy"), **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


def test_a_file_that_is_no_array_is_refused(tmp_path):
    for name in ("ids.npy", "ids.safetensors"):
        (tmp_path / name).write_bytes(b"no array")
        with pytest.raises(ValueError, match="cannot be opened as an array"):
            encoded(tmp_path / name, tmp_path / "corpus")


def test_words_among_ids_are_named(tmp_path):
    (tmp_path / "ids.txt").write_text("60 do re mi")
    with pytest.raises(ValueError, match="'do' is no id"):
        encoded(tmp_path / "ids.txt", tmp_path / "corpus")


def test_an_array_is_no_text(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(10))
    with pytest.raises(ValueError, match="holds ids, but unit is 'char': give unit id"):
        encode_corpus(TextSettings(str(tmp_path / "ids.npy")), tmp_path / "corpus")
