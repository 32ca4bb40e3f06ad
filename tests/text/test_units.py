from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from transformer_xl import TransfoXLConfig
from transformer_xl.text.units import byte_pair_tokenizer, byte_tokenizer, character_tokenizer, word_tokenizer

TEXT = "To be, or not to be:\n  that is the question.\n\n\tÉ 東 😀\r\n"
SPLIT_TEXT = "to be or\nnot to be\n"
TOKENIZERS = {
    "character": lambda: character_tokenizer([TEXT, SPLIT_TEXT]),
    "byte": byte_tokenizer,
    "byte_pair": lambda: byte_pair_tokenizer([TEXT, SPLIT_TEXT], 270),
    "word": lambda: word_tokenizer([SPLIT_TEXT]),
}


@pytest.mark.parametrize("unit", TOKENIZERS)
def test_text_comes_back_also_after_auto_tokenizer_opened_the_model_folder(unit, tmp_path):
    tokenizer = TOKENIZERS[unit]()
    tokenizer.save_pretrained(tmp_path)
    TransfoXLConfig(vocab_size=len(tokenizer), cutoffs=[]).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = SPLIT_TEXT if unit == "word" else TEXT
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.padding_side == "left"


def test_characters_are_numbered_by_frequency_and_rare_ones_are_unknown():
    tokenizer = character_tokenizer(["aab", "bbc"], min_count=2)
    assert tokenizer.get_vocab() == {"b": 0, "a": 1, "<unk>": 2}
    assert tokenizer.encode("abz") == [1, 0, 2]


def test_words_are_numbered_by_frequency_and_rare_ones_are_unknown():
    tokenizer = word_tokenizer(["b b a\n", "b c a\n"], min_count=2)
    assert tokenizer.idx2sym == ["b", "<eos>", "a", "<unk>"]
    assert tokenizer.encode("c b\n") == [3, 0, 1]


def test_a_byte_is_its_own_id():
    assert byte_tokenizer().encode("né\n") == list("né\n".encode())
    assert len(byte_tokenizer()) == 256


def test_byte_pairs_know_every_text_and_the_line_end():
    tokenizer = byte_pair_tokenizer(["aaaa aaaa"] * 3, 260)
    assert len(tokenizer) <= 260
    assert tokenizer.decode(tokenizer.encode("never seen: ∀x\n")) == "never seen: ∀x\n"
    assert tokenizer.eos_token_id == 0


def test_too_few_byte_pairs_are_refused():
    with pytest.raises(ValueError, match="vocab_size is 256, but 257 or more are needed"):
        byte_pair_tokenizer(["text"], 256)
