from __future__ import annotations

import gzip
import importlib
import io
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_xl.data import sources
from transformer_xl.data.corpus import read_text
from transformer_xl.data.sources import File, Text, text_of


def pieces_of(content: bytes, piece_bytes: int, start: int = 0, stop: int | None = None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE_BYTES", piece_bytes)
        return list(Text([File("text", lambda: io.BytesIO(content))], start, stop).pieces())


texts = st.text(st.sampled_from("ab \nä€😀"), max_size=60)


@given(text=texts, piece_bytes=st.integers(1, 20))
def test_pieces_joined_are_the_text_and_know_their_place(text, piece_bytes):
    content = text.encode()
    pieces = pieces_of(content, piece_bytes)
    assert b"".join(piece.content for piece in pieces) == content
    assert all(content[piece.offset :].startswith(piece.content) for piece in pieces)


@given(text=texts, piece_bytes=st.integers(4, 20))
def test_no_piece_ends_within_a_character(text, piece_bytes):
    assert "".join(piece.content.decode() for piece in pieces_of(text.encode(), piece_bytes)) == text


@given(text=st.text(st.sampled_from("ab\n "), min_size=1, max_size=60))
def test_no_piece_ends_within_a_word_that_is_shorter_than_it(text):
    words = " ".join(word[:3] for word in text.split(" "))
    pieces = pieces_of(words.encode(), 8)
    assert [word for piece in pieces for word in piece.content.split()] == words.encode().split()


@given(text=texts, piece_bytes=st.integers(1, 20), borders=st.tuples(st.integers(0, 80), st.integers(0, 80)))
def test_a_part_of_a_text_is_those_bytes_and_begins_a_document(text, piece_bytes, borders):
    start, stop = sorted(borders)
    pieces = pieces_of(text.encode(), piece_bytes, start, stop)
    assert b"".join(piece.content for piece in pieces) == text.encode()[start:stop]
    assert [piece.starts for piece in pieces] == [(0,) if i == 0 else () for i in range(len(pieces))]


def test_a_pattern_is_all_its_files_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    assert read_text(str(tmp_path / "*.txt")) == "a\nb\nc\n"


def test_a_pattern_without_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file fits the pattern '.*\*\.txt'"):
        read_text(str(tmp_path / "*.txt"))


def test_packed_files_are_unpacked(tmp_path):
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(b"a text\n"))
    assert read_text(str(tmp_path / "text.txt.gz")) == "a text\n"


def test_a_packed_file_that_is_cut_short_is_refused(tmp_path):
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(b"a text\n" * 1000)[:-20])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        read_text(str(tmp_path / "text.txt.gz"))


def test_standard_input_can_be_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"typed\n")))
    text = text_of("-", "train", spool=tmp_path / "spool")
    assert [[piece.content for piece in text.pieces()] for _ in range(2)] == [[b"typed\n"]] * 2


def rows_of(path, field="text"):
    return [(piece.content, piece.starts) for piece in text_of(str(path), "train", field).pieces()]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The same two rows as JSON lines, Parquet and Arrow."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("datasets")
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    rows = {"text": ["first row", "the second\nrow\n"], "number": [1, 2]}
    table = pyarrow.table(rows)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows["text"]))
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pyarrow.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    return tmp_path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_each_row_of_a_table_is_a_document_that_ends_with_a_line(kind, tables):
    assert rows_of(tables / f"rows.{kind}") == [(b"first row\nthe second\nrow\n", (0, 10))]


def test_a_column_that_is_missing_or_no_text_is_named(tables):
    with pytest.raises(ValueError, match=r"has no column 'words': give field as one of 'text', 'number'"):
        rows_of(tables / "rows.parquet", "words")
    with pytest.raises(ValueError, match=r"the column 'number' of '.*' holds 1, which is no text"):
        rows_of(tables / "rows.parquet", "number")


def test_a_table_that_cannot_be_read_is_refused(tables):
    (tables / "rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        rows_of(tables / "rows.parquet")


def test_without_the_package_that_reads_tables_its_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"is not installed: pip install 'transformer-xl\[datasets\]'"):
        rows_of(tmp_path / "rows.jsonl")
