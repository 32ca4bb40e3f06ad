"""What a run will take is known before it is begun."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.training.estimates import count_symbols, estimate, forward_operations, matrix_product_rate
from transformer_xl.training.fresh_model import fresh_config
from transformer_xl.training.recipes import RECIPES
from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

SHAPE = ModelSettings(
    num_layers=2, width=16, num_heads=2, head_width=6, inner_width=24, memory_length=8, cutoffs=(), pre_norm=False
)


@pytest.mark.parametrize("ext_len", [0, 3])
@pytest.mark.parametrize("embedding_width", [16, 8])
def test_operations_are_those_that_pytorch_counts(embedding_width, ext_len):
    config = fresh_config(replace(SHAPE, embedding_width=embedding_width), 50, 10, ext_len)
    model = TransfoXLLMHeadModel(config).train()
    ids = torch.zeros(4, 10 + ext_len, dtype=torch.long)
    targets = ids.clone()
    targets[:, :ext_len] = -100
    mems = [torch.ones(8, 4, 16)] * 2
    with FlopCounterMode(display=False) as counter:
        model(ids, mems=mems, shift_labels=targets, output_attentions=True)
    # PyTorch also counts the softmax of the tokens that are only read again, and in each layer one column of distances
    # that the shift from distances to keys throws away.
    read_again = 2 * 4 * ext_len * embedding_width * (50 + (16 if embedding_width != 16 else 0))
    thrown_away = 2 * 2 * 4 * (10 + ext_len) * 12
    assert forward_operations(config, 4, 10, ext_len) + read_again + thrown_away == counter.get_total_flops()


def test_rare_bands_are_cheap():
    whole = fresh_config(SHAPE, 50_000, 10)
    banded = fresh_config(replace(SHAPE, cutoffs=(2_000, 10_000)), 50_000, 10)
    assert forward_operations(banded, 4, 10) < forward_operations(whole, 4, 10) / 2


def test_an_estimate_names_what_a_run_takes():
    run = RECIPES["wt103_large"](None)
    found = estimate(run)
    assert found.num_symbols == 267_735
    assert found.num_parameters == 285_170_506
    assert found.fixed_bytes == 16 * found.num_parameters
    assert found.hours(found.operations * 4_000_000) == pytest.approx(1 / 3600)


def test_a_run_of_minutes_has_no_hours():
    assert estimate(RECIPES["small_characters"](None)).hours(1.0) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TextSettings(dataset="wt2"), 33_278),
        (TextSettings(dataset="text8"), 28),
        (TextSettings(dataset="enwik8"), 256),
        (TextSettings("unseen.txt", unit="bpe"), 8_000),
    ],
    ids=str,
)
def test_symbols_are_known_without_reading_the_text(text, expected):
    assert count_symbols(text) == expected


def test_symbols_of_a_text_of_ones_own_are_counted(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 30, encoding="utf-8")
    assert count_symbols(TextSettings(str(tmp_path / "text.txt"), unit="word")) == 6


def test_the_estimate_of_memory_grows_with_what_is_remembered():
    text, training = TextSettings("builtin:shakespeare"), TrainingSettings()
    runs = [RunSettings(text, replace(SHAPE, memory_length=length), training) for length in (0, 64, 256)]
    few, more, many = (estimate(run, 50).step_bytes for run in runs)
    assert few < more < many


def test_the_rate_of_this_machine_is_measured():
    assert matrix_product_rate(torch.device("cpu")) > 1e8
