from __future__ import annotations

from dataclasses import replace

from transformer_xl.text.vocabulary import Vocabulary
from transformer_xl.training.fresh_model import fresh_config, fresh_model
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


def test_every_setting_of_the_shape_arrives_in_the_configuration():
    settings = ModelSettings(
        num_layers=3, width=16, num_heads=3, head_width=5, inner_width=7, embedding_width=8, cutoffs=(10, 20),
        band_divisor=2, tie_words=False, tie_projections=False, share_biases=True, memory_length=9,
        initial_memory="zeros", clamp_length=11, same_length=True, pre_norm=False, dropout=0.1, attention_dropout=0.2,
        initial_std=0.3, initial_projection_std=0.4, share_position_projection=True,
        word_dropout=0.05, locked_input_dropout=0.06, locked_attention_dropout=0.07, locked_feed_forward_dropout=0.08,
        locked_output_dropout=0.09,
    )  # fmt: skip
    config = fresh_config(settings, 30, segment_length=12, extended_length=13)
    expected = {
        "n_layer": 3, "d_model": 16, "n_head": 3, "d_head": 5, "d_inner": 7, "d_embed": 8, "cutoffs": [10, 20],
        "div_val": 2, "tie_word_embeddings": False, "tie_projs": [False] * 3, "untie_r": False, "mem_len": 9,
        "initial_memory": "zeros", "clamp_len": 11, "same_length": True, "pre_lnorm": False, "dropout": 0.1,
        "dropatt": 0.2, "init_std": 0.3, "proj_init_std": 0.4, "share_position_projection": True, "tgt_len": 12,
        "ext_len": 13, "vocab_size": 30, "word_dropout": 0.05, "locked_input_dropout": 0.06,
        "locked_attention_dropout": 0.07, "locked_feed_forward_dropout": 0.08, "locked_output_dropout": 0.09,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


def test_no_bands_can_be_asked_for():
    assert fresh_config(ModelSettings(cutoffs=(0,)), 50_000, 16).cutoffs == []
    assert fresh_config(ModelSettings(cutoffs=()), 50_000, 16).cutoffs == []


def test_cutoffs_that_were_read_from_json_are_the_same_settings():
    assert ModelSettings(cutoffs=[5, 6]) == ModelSettings(cutoffs=(5, 6))


def test_a_sampled_softmax_has_no_bands():
    config = fresh_model(replace(SMALL, sample_softmax=100), words(10_001), 16).config
    assert (config.cutoffs, config.sample_softmax) == ([], 100)
