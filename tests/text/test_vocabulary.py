from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import transformer_xl  # noqa: F401
from transformer_xl.text.tokenizer import TransfoXLTokenizer
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary, build_vocabulary, load_vocabulary
from transformer_xl.text.vocabulary import Vocabulary

TEXT = "to be or not to be\nthat is the question\n"


@pytest.mark.parametrize("unit", ["char", "byte"])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_characters_and_bytes_come_back_exactly(unit, text):
    vocabulary = Vocabulary.build(text, unit)
    assert vocabulary.decode(vocabulary.encode(text, strict=True)) == text


def test_words_come_back_with_single_spaces_and_line_ends():
    vocabulary = Vocabulary.build(TEXT, "word")
    ids = vocabulary.encode("to  be\n\n not \tto be\n")
    assert vocabulary.decode(ids) == "to be\n\nnot to be\n"


def test_each_line_end_of_words_is_one_eos():
    vocabulary = Vocabulary.build(TEXT, "word")
    assert [vocabulary.symbols[i] for i in vocabulary.encode("be\nbe\n")] == ["be", "<eos>", "be", "<eos>"]


@pytest.mark.parametrize("unit", ["char", "word"])
def test_the_most_frequent_symbol_comes_first(unit):
    vocabulary = Vocabulary.build(TEXT, unit)
    counts = np.bincount(vocabulary.encode(TEXT), minlength=len(vocabulary))
    assert counts.tolist() == sorted(counts, reverse=True)


def test_the_order_of_symbols_does_not_depend_on_the_order_of_the_text():
    assert Vocabulary.build("abcabc", "char").symbols == Vocabulary.build("cbacba", "char").symbols


@pytest.mark.parametrize("unit", ["char", "word"])
def test_unseen_symbols_become_unknown_and_are_counted(unit):
    vocabulary = Vocabulary.build("a b c", unit)
    ids = vocabulary.encode("a ä b")
    assert vocabulary.count_unknown(ids) == 1
    assert vocabulary.decode(ids) == "a <unk> b"


def test_bytes_know_every_text():
    vocabulary = Vocabulary.build("a", "byte")
    assert len(vocabulary) == 256
    assert vocabulary.encode("aä€").tolist() == list("aä€".encode())
    assert vocabulary.count_unknown(vocabulary.encode("aä€")) == 0


def test_rare_symbols_become_unknown():
    vocabulary = Vocabulary.build("a a a b b c", "word", min_count=2)
    assert vocabulary.symbols == ("a", "b", "<unk>", "<eos>")


def test_an_unknown_symbol_is_named_with_its_place():
    with pytest.raises(ValueError, match="character 'ß' at position 3"):
        Vocabulary.build("abc", "char").encode("abcß", strict=True)
    with pytest.raises(ValueError, match="word 'dog' at position 1"):
        Vocabulary.build("a cat", "word").encode("a dog", strict=True)


@pytest.mark.parametrize(("unit", "size"), [("char", 27), ("byte", 256)])
def test_ids_take_one_byte_where_they_fit(unit, size):
    vocabulary = Vocabulary.build("abcdefghijklmnopqrstuvwxyz", unit)
    assert len(vocabulary) == size
    assert vocabulary.encode("abc").dtype == np.uint8


def test_ids_take_two_bytes_where_one_is_too_small():
    text = " ".join(map(str, range(300)))
    assert Vocabulary.build(text, "word").encode(text).dtype == np.uint16


def test_streamed_pieces_are_the_decoded_text_while_it_arrives():
    vocabulary = Vocabulary.build("", "byte")
    pieces = list(vocabulary.stream("a€".encode()))
    assert pieces == ["a", "", "", "€", ""]
    assert list(vocabulary.stream("€".encode()[:2]))[-1] == "\ufffd"


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
def test_a_saved_vocabulary_comes_back_equal(unit, tmp_path):
    text = "naïve €\n日本 <unk>\t' \" \\ \n\n" * 3
    vocabulary = build_vocabulary(text, unit, vocab_size=270)
    vocabulary.save(tmp_path)
    loaded = load_vocabulary(tmp_path)
    assert (type(loaded), loaded.unit, len(loaded)) == (type(vocabulary), unit, len(vocabulary))
    ids = vocabulary.encode(text)
    assert loaded.encode(text).tolist() == ids.tolist()
    assert loaded.decode(ids) == vocabulary.decode(ids)


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
def test_the_tokenizer_of_transformers_gives_the_same_ids(unit, tmp_path):
    vocabulary = build_vocabulary(TEXT, unit, vocab_size=270)
    vocabulary.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode(TEXT) == vocabulary.encode(TEXT).tolist()


def test_byte_pairs_know_every_text_and_take_fewer_symbols():
    vocabulary = build_vocabulary(TEXT * 5, "bpe", vocab_size=280)
    assert len(vocabulary) == 280
    text = "to be 日本\n"
    ids = vocabulary.encode(text, strict=True)
    assert len(ids) < len(text.encode())
    assert vocabulary.decode(ids) == text
    assert "".join(vocabulary.stream(ids)) == text


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_file_is_refused_by_name(name, tmp_path):
    build_vocabulary(TEXT, "char").save(tmp_path)
    (tmp_path / name).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read"):
        load_vocabulary(tmp_path)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("unit", "text", "line_end"),
    [("char", "ab\n", "\n"), ("char", "ab", None), ("byte", "ab", "\n"), ("word", "a b", "\n"), ("bpe", "ab\n", "\n")],
)
def test_the_line_end_of_a_vocabulary_is_known(unit, text, line_end, tmp_path):
    vocabulary = build_vocabulary(text, unit, vocab_size=257)
    vocabulary.save(tmp_path)
    for each in (vocabulary, load_vocabulary(tmp_path)):
        index = each.line_end_id
        assert (index if index is None else each.decode([index])) == line_end


@pytest.mark.parametrize(("symbols", "index"), [(["<unk>", "<eos>", "a", "None"], 1), (["<unk>", "a", "None"], None)])
def test_the_line_end_of_a_tokenizer_of_words_is_eos_if_it_has_one(symbols, index):
    eos = "<eos>" if index is not None else None
    tokenizer = TransfoXLTokenizer(already_split=True, additional_special_tokens=[], symbols=symbols, eos_token=eos)
    assert TokenizerVocabulary(tokenizer, "word").line_end_id == index


def test_a_line_end_is_no_word_where_the_vocabulary_has_no_symbol_for_it():
    symbols = ["<unk>", "a", "None"]
    tokenizer = TransfoXLTokenizer(already_split=True, additional_special_tokens=[], symbols=symbols, eos_token=None)
    assert tokenizer.tokenize("a\na\n") == ["a", "a"]
