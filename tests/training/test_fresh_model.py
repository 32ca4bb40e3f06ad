from __future__ import annotations

from transformer_xl.text.vocabulary import Vocabulary
from transformer_xl.training.fresh_model import fresh_model
from transformer_xl.training.settings import ModelSettings

SMALL = ModelSettings(num_layers=1, width=8, num_heads=2, inner_width=8)


def words(number: int) -> Vocabulary:
    return Vocabulary("word", ["<unk>", "<eos>", *map(str, range(number - 2))])


def test_small_vocabularies_have_a_plain_softmax_and_large_ones_bands():
    assert fresh_model(SMALL, words(10_000), 16).config.cutoffs == []
    assert fresh_model(SMALL, words(10_001), 16).config.cutoffs == [10_000]
    assert fresh_model(SMALL, words(50_000), 16).config.cutoffs == [10_000, 40_000]


def test_the_memory_of_a_fresh_model_starts_empty_and_nothing_ends_its_text():
    config = fresh_model(SMALL, words(10), 16).config
    assert config.initial_memory == "empty"
    assert config.eos_token_id is None
    assert config.tgt_len == 16
