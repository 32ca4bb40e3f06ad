"""The runs of the paper: their shapes count what the authors' own code counts, without being built."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
import torch

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.training.fresh_model import fresh_config
from transformer_xl.training.recipes import RECIPES, changed
from transformer_xl.training.settings import ModelSettings, TextSettings, TrainingSettings

# What the authors' PyTorch code counts for the same shape and vocabulary, but for two lines: of Penn Treebank, what its
# logs count; of WikiText-2, what its logs count less two clusters of 401 numbers each that no word could reach.
COUNTS = {
    "wt103_base": (267_735, 151_107_538),
    "wt103_large": (267_735, 285_170_506),
    "enwik8_base": (204, 41_055_436),
    "enwik8_large": (204, 277_231_820),
    "text8_large": (27, 277_050_395),
    "lm1b_base": (793_471, 357_812_082),
    "lm1b_large": (793_471, 841_295_982),
    "wikitext2": (33_278, 37_712_881 - 2 * 401),
    "ptb": (10_000, 24_040_400),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_parameters_of_a_recipe_are_as_many_as_the_authors(name):
    num_symbols, expected = COUNTS[name]
    run = RECIPES[name](None)
    config = fresh_config(run.model, num_symbols, run.training.segment_length, run.text.ext_len)
    with torch.device("meta"):
        model = TransfoXLLMHeadModel(config)
    assert model.num_parameters() == expected


def test_the_output_words_of_one_billion_words_count_once_more_in_the_paper():
    run = RECIPES["lm1b_base"](None)
    config = fresh_config(run.model, 793_471, 32)
    config.tie_word_embeddings = False
    with torch.device("meta"):
        assert round(TransfoXLLMHeadModel(config).num_parameters() / 1e9, 2) == 0.47


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_the_data_that_it_is_given(name):
    text = RECIPES[name]("somewhere").text
    assert "somewhere" in (text.train, text.data)


@pytest.mark.parametrize("name", COUNTS)
def test_the_authors_biases_norms_and_empty_memories_are_kept(name):
    model = RECIPES[name](None).model
    assert (model.share_biases, model.pre_norm, model.initial_memory) == (True, False, "empty")
    assert (model.initial_std, model.initial_projection_std) == (0.02, 0.01)


def test_no_two_settings_have_the_same_name():
    names = [each.name for group in (TextSettings, ModelSettings, TrainingSettings) for each in fields(group)]
    assert len(names) == len(set(names))


def test_recipes_need_no_torch():
    program = "import sys, transformer_xl.training.recipes\nassert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_single_settings_of_a_run_can_be_changed_whatever_group_they_are_of():
    run = changed(RECIPES["wikitext2"]("folder"), batch_size=16, width=80, num_heads=2, head_width=None, min_count=3)
    assert (run.training.batch_size, run.model.width, run.text.min_count) == (16, 80, 3)
    assert (run.text.dataset, run.text.data, run.training.steps) == ("wt2", "folder", 125_000)


def test_a_text_of_ones_own_takes_the_place_of_the_known_set_and_is_read_like_it():
    text = changed(RECIPES["ptb"](None), train="mine.txt").text
    assert (text.train, text.dataset, text.unit, text.lower_case, text.varlen) == ("mine.txt", None, "word", True, True)


def test_steps_and_minutes_take_each_others_place():
    training = changed(RECIPES["small_characters"](None), steps=100).training
    assert (training.steps, training.minutes) == (100, None)
    training = changed(RECIPES["wikitext2"](None), minutes=30.0).training
    assert (training.minutes, training.warm_up_steps, training.warm_up) == (30.0, None, 3_000 / 125_000)


def test_an_unknown_setting_is_named_with_those_that_are_close():
    with pytest.raises(ValueError, match="there is no setting 'bath_size': is it one of batch_size"):
        changed(RECIPES["wikitext2"](None), bath_size=16)
