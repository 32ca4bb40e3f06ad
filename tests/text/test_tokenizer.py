from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from transformer_xl import TransfoXLConfig
from transformer_xl.text.fast_tokenizer import TransfoXLTokenizerFast
from transformer_xl.text.tokenizer import TransfoXLTokenizer

PICKLES = sorted((Path(__file__).resolve().parents[1] / "golden" / "conversion").glob("vocabulary_*.*"))
PICKLES = [path for path in PICKLES if path.suffix in (".pkl", ".bin")]
SYMBOLS = ["<eos>", "<unk>", ",", "Don", "'t", "panic", "!", "the", "towel"]


@pytest.fixture
def tokenizer() -> TransfoXLTokenizer:
    return TransfoXLTokenizer(symbols=SYMBOLS)


def all_ids_are_unique(tokenizer: TransfoXLTokenizer) -> bool:
    ids = list(tokenizer.get_vocab().values())
    return sorted(ids) == list(range(len(tokenizer)))


# The page


def test_the_signature_is_that_of_transformers_4():
    parameters = inspect.signature(TransfoXLTokenizer).parameters
    defaults = {name: each.default for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD}
    assert defaults == {
        "special": None,
        "min_freq": 0,
        "max_size": None,
        "lower_case": False,
        "delimiter": None,
        "vocab_file": None,
        "pretrained_vocab_file": None,
        "never_split": None,
        "unk_token": "<unk>",
        "eos_token": "<eos>",
        "additional_special_tokens": ["<formula>"],
        "language": "en",
    }


def test_the_example_of_the_page():
    tokens = ["23", "@,@", "000", "people", "are", "1", "@.@", "80", "m", "tall"]
    assert TransfoXLTokenizer().moses_pipeline("23,000 people are 1.80 m tall") == tokens


def test_the_steps_of_the_pipeline_can_be_called_one_by_one(tokenizer):
    assert tokenizer.moses_punct_norm("“1,000”") == '"1,000"'
    assert tokenizer.moses_tokenize('"1,000"') == ['"', "1,000", '"']
    assert tokenizer.convert_tokens_to_string(["Don", "'t", "panic", "!"]) == "Don't panic!"


def test_padding_is_on_the_left_and_masked(tokenizer):
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    batch = tokenizer(["Don't panic", "panic"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[3, 4, 5], [10, 10, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("tokenizer_class", [TransfoXLTokenizer, TransfoXLTokenizerFast])
def test_tensors_of_tensorflow_are_made_or_told_how_to_get(tokenizer_class, monkeypatch):
    tokenizer = tokenizer_class(symbols=["<unk>", "<eos>", "panic", "!"])
    module = SimpleNamespace(constant=lambda numbers, dtype: (numbers.tolist(), dtype), int32="whole numbers")
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    assert tokenizer("panic!", return_tensors="tf")["input_ids"] == ([[2, 3]], "whole numbers")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"pip install 'transformer-xl\[tensorflow\]'"):
        tokenizer("panic!", return_tensors="tf")


def test_what_transformers_5_dropped_is_there(tokenizer):
    assert tokenizer.additional_special_tokens == ["<formula>"]
    assert tokenizer.additional_special_tokens_ids == [9]
    tokenizer.additional_special_tokens = ["<a>", "<b>"]
    assert tokenizer.additional_special_tokens == tokenizer.extra_special_tokens == ["<a>", "<b>"]
    assert tokenizer.encode_plus("panic!")["input_ids"] == [5, 6]
    assert tokenizer.encode_plus(["panic", "!"])["input_ids"] == tokenizer.encode_plus([5, 6])["input_ids"] == [5, 6]
    assert tokenizer.batch_encode_plus(["panic", "!"])["input_ids"] == [[5], [6]]


# Special tokens


def test_ends_are_really_added(tokenizer):
    assert tokenizer.tokenize("panic", add_eos=True) == ["panic", "<eos>"]
    assert tokenizer.tokenize("panic", add_double_eos=True) == ["<S>", "panic", "<S>"]
    assert tokenizer.encode("panic", add_eos=True) == [5, 0]


def test_special_tokens_inside_text_stay_whole(tokenizer):
    assert tokenizer.tokenize("Don<eos>'t<formula>!") == ["Don", "<eos>", "'t", "<formula>", "!"]
    assert tokenizer.decode([5, 9, 6, 0]) == "panic <formula>! <eos>"
    assert tokenizer.decode([5, 9, 6, 0], skip_special_tokens=True) == "panic!"


def test_old_names_of_ids_are_known(tokenizer):
    assert (tokenizer.eos_idx, tokenizer.unk_idx) == (0, 1)
    assert not hasattr(tokenizer, "formality_idx")
    assert TransfoXLTokenizer(symbols=["<S>", "<UNK>", "word"]).S_idx == 0


def test_an_unknown_symbol_in_capitals_is_found():
    tokenizer = TransfoXLTokenizer(symbols=["<S>", "<UNK>", "word"])
    assert tokenizer.encode("word other") == [2, 1]
    assert tokenizer.unk_token == "<UNK>"


def test_an_unknown_word_without_an_unknown_symbol_is_an_error():
    tokenizer = TransfoXLTokenizer(symbols=["word"], unk_token=None)
    with pytest.raises(ValueError, match="'other' is not in the vocabulary"):
        tokenizer.encode("other")


def test_an_id_outside_the_vocabulary_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="id -100 is not in the vocabulary"):
        tokenizer.decode([-100])


# Building a vocabulary


def test_a_vocabulary_of_counts_begins_with_the_special_symbols_and_has_unique_ids():
    tokenizer = TransfoXLTokenizer(special=["<eos>", "<unk>"], min_freq=2)
    tokenizer.count_sents([["b", "a", "b"], ["a", "b", "c"]])
    tokenizer.build_vocab()
    assert tokenizer.idx2sym == ["<eos>", "<unk>", "b", "a"]
    assert tokenizer.encode("a b c <formula>") == [3, 2, 1, 4]
    assert all_ids_are_unique(tokenizer)


def test_special_tokens_do_not_collide_with_words_even_if_nobody_named_them():
    tokenizer = TransfoXLTokenizer()
    tokenizer.count_sents([["a", "b", "c", "d"]])
    tokenizer.build_vocab()
    assert all_ids_are_unique(tokenizer)
    assert tokenizer.encode("a unknown <formula>") == [0, tokenizer.unk_token_id, tokenizer.get_vocab()["<formula>"]]


def test_the_largest_size_counts_what_was_counted():
    tokenizer = TransfoXLTokenizer(special=["<eos>"], max_size=1)
    tokenizer.count_sents([["b", "a", "b"]])
    tokenizer.build_vocab()
    assert tokenizer.idx2sym == ["<eos>", "b"]


def test_symbols_can_be_added_one_by_one(tokenizer):
    tokenizer.add_symbol("new")
    tokenizer.add_special("<S>")
    tokenizer.add_symbol("new")
    assert tokenizer.encode("new <S>")[0] == 9
    assert tokenizer.S_idx == 10
    assert all_ids_are_unique(tokenizer)


def test_files_are_counted_and_encoded(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Don't panic\n\npanic!\n", encoding="utf-8")
    tokenizer = TransfoXLTokenizer(symbols=SYMBOLS)
    assert tokenizer.count_file(path, add_eos=True) == [
        ["Don", "'t", "panic", "<eos>"],
        ["<eos>"],
        ["panic", "!", "<eos>"],
    ]
    assert tokenizer.counter == Counter({"<eos>": 3, "panic": 2, "Don": 1, "'t": 1, "!": 1})
    lines = tokenizer.encode_file(path)
    assert [line.tolist() for line in lines] == [[3, 4, 5, 0], [0], [5, 6, 0]]
    assert tokenizer.encode_file(path, ordered=True).tolist() == [3, 4, 5, 0, 0, 5, 6, 0]
    without = tokenizer.encode_file(path, add_eos=False)
    assert without[1].shape == (0,)
    assert without[1].dtype == torch.int64
    assert tokenizer.encode_sents([["panic", "!"]], ordered=True).tolist() == [5, 6]


def test_a_missing_file_is_named(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        tokenizer.encode_file(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="none"):
        TransfoXLTokenizer(vocab_file=tmp_path / "none.txt")


# Moving added tokens


def test_a_moved_token_keeps_all_ids_unique(tokenizer):
    before = len(tokenizer)
    tokenizer.add_tokens(["new1", "new2"])
    tokenizer.move_added_token("new1", 1)
    assert len(tokenizer) == before + 2
    assert tokenizer.encode("new1 panic new2") == [1, 6, 11]
    assert tokenizer.decode([1]) == "new1"
    assert tokenizer.unk_token_id == tokenizer.unk_idx == 2
    assert all_ids_are_unique(tokenizer)


@pytest.mark.parametrize(
    ("token", "index", "message"), [("x", 0, "no added token"), ("<unk>", 0, "already"), ("new", 99, "0 to 9")]
)
def test_a_token_that_cannot_be_moved_is_an_error(tokenizer, token, index, message):
    tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match=message):
        tokenizer.move_added_token(token, index)


# Files


def saved_and_loaded(tokenizer: TransfoXLTokenizer, folder: Path) -> TransfoXLTokenizer:
    tokenizer.save_pretrained(folder)
    return TransfoXLTokenizer.from_pretrained(folder)


def assert_the_same(loaded: TransfoXLTokenizer, tokenizer: TransfoXLTokenizer) -> None:
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.idx2sym == tokenizer.idx2sym
    assert loaded.counter == tokenizer.counter
    assert loaded.all_special_tokens == tokenizer.all_special_tokens
    assert loaded.never_split == tokenizer.never_split
    text = "Don't panic <formula>, unknown towel!"
    assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_a_saved_tokenizer_comes_back_the_same(tokenizer, tmp_path):
    tokenizer.counter.update(["panic", "panic", "towel"])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.add_tokens(["new1", "new2"])
    tokenizer.move_added_token("new2", 3)
    assert_the_same(saved_and_loaded(tokenizer, tmp_path), tokenizer)


@pytest.mark.parametrize("names", [["vocab.json"], ["vocab.txt"], ["vocab.json", "vocab.txt"]])
def test_each_file_is_enough(tokenizer, tmp_path, names):
    tokenizer.save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in names:
            path.unlink()
    loaded = TransfoXLTokenizer.from_pretrained(tmp_path)
    assert_the_same(loaded, tokenizer)
    assert TransfoXLTokenizer(pretrained_vocab_file=tmp_path / names[0]).idx2sym == tokenizer.idx2sym


def test_only_text_and_json_are_written(tokenizer, tmp_path):
    tokenizer.counter.update(["panic"])
    tokenizer.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".txt"}
    for path in tmp_path.iterdir():
        path.read_text(encoding="utf-8")


def test_symbols_with_white_space_are_saved_as_json_only(tmp_path):
    tokenizer = TransfoXLTokenizer(delimiter="", symbols=["a", " ", "\u2028", "<unk>"])
    loaded = saved_and_loaded(tokenizer, tmp_path)
    assert not (tmp_path / "vocab.txt").exists()
    assert loaded.encode("a a") == [0, 1, 0]
    assert loaded.decode([0, 1, 0]) == "a a"


def test_a_reloaded_tokenizer_can_build_a_new_vocabulary_from_counts(tokenizer, tmp_path):
    loaded = saved_and_loaded(tokenizer, tmp_path)
    loaded.count_sents([["something", "else"]])
    loaded.build_vocab()
    assert loaded.idx2sym == ["something", "else"]


@pytest.mark.parametrize("path", PICKLES, ids=lambda path: path.name)
def test_old_vocabularies_open_and_come_back_as_text(path, tmp_path):
    name = "vocab.pkl" if path.suffix == ".pkl" else "vocab.bin"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / name).write_bytes(path.read_bytes())
    tokenizer = TransfoXLTokenizer.from_pretrained(tmp_path / "old")
    assert all_ids_are_unique(tokenizer)
    assert tokenizer.idx2sym == TransfoXLTokenizer(pretrained_vocab_file=path).idx2sym
    assert_the_same(saved_and_loaded(tokenizer, tmp_path / "new"), tokenizer)


def test_the_file_of_one_billion_words_has_counts_beside_the_symbols(tmp_path):
    path = tmp_path / "1b_word_vocab.txt"
    path.write_text("<S>\t30301028\nthe 9\n<UNK> 5\n", encoding="utf-8")
    assert TransfoXLTokenizer(vocab_file=path).idx2sym == ["<S>", "the", "<UNK>"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", "{", "is not a JSON file"),
        ("vocab.json", '{"a": 0, "b": 2}', "ids from 0 on"),
        ("vocab.json", '["a"]', "ids from 0 on"),
        ("vocab.txt", "a\n\nb\n", "line 2 .* is empty"),
    ],
)
def test_a_broken_vocabulary_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        TransfoXLTokenizer(pretrained_vocab_file=path)
    assert str(path) in str(caught.value)


def test_a_folder_without_a_vocabulary_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no vocabulary"):
        TransfoXLTokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_is_saved_into_folders_only(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        tokenizer.save_vocabulary(str(tmp_path / "none"))
    names = [Path(path).name for path in tokenizer.save_vocabulary(str(tmp_path), filename_prefix="old")]
    assert names == ["old-vocab.json", "old-vocab.txt"]


def test_auto_tokenizer_finds_it_with_and_without_its_settings(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert_the_same(AutoTokenizer.from_pretrained(tmp_path), tokenizer)
    TransfoXLConfig(vocab_size=9, cutoffs=[4]).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is TransfoXLTokenizer


def test_a_folder_with_colliding_ids_is_repaired(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["added_tokens_decoder"]["2"] = settings["added_tokens_decoder"].pop("9")
    path.write_text(json.dumps(settings), encoding="utf-8")
    loaded = TransfoXLTokenizer.from_pretrained(tmp_path)
    assert all_ids_are_unique(loaded)
    assert loaded.encode(", <formula>") == [2, 9]


def test_it_can_be_copied_and_sent_to_other_processes(tokenizer):
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin.encode("Don't panic") == [3, 4, 5]


# Text that is already split


def test_text_that_is_already_split_is_split_on_white_space_only():
    tokenizer = TransfoXLTokenizer(already_split=True, symbols=["<eos>", "<unk>", "@-@", "don't", "U.S.", "N"])
    text = "don't U.S. @-@ N\n\nN <unk>\n"
    assert tokenizer.encode(text) == [3, 4, 2, 5, 0, 0, 5, 1, 0]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_file_that_is_already_split_gets_one_end_for_each_line(tmp_path):
    path = tmp_path / "wiki.txt"
    path.write_text(" \n = Title = \n \n", encoding="utf-8")
    tokenizer = TransfoXLTokenizer(already_split=True, symbols=["<eos>", "<unk>", "=", "Title"])
    assert tokenizer.encode_file(path, ordered=True).tolist() == [0, 2, 3, 2, 0, 0]
    assert tokenizer.encode(path.read_text(encoding="utf-8")) == [0, 2, 3, 2, 0, 0]


def test_the_setting_is_saved(tmp_path):
    tokenizer = TransfoXLTokenizer(already_split=True, symbols=["<eos>", "<unk>", "U.S"])
    assert saved_and_loaded(tokenizer, tmp_path).tokenize("U.S. (x)") == ["U.S.", "(x)"]


def test_a_vocabulary_nested_without_end_is_refused_by_name(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"vocab\.json' is not a JSON file"):
        TransfoXLTokenizer(pretrained_vocab_file=str(path))
