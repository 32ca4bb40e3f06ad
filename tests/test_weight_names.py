"""The tables lead from each of our weights to one of another program."""

from __future__ import annotations

import pytest

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.weight_names import (
    LEGACY_HF,
    LEGACY_KERAS,
    NVIDIA,
    ORIGINAL_TENSORFLOW,
    ORIGINAL_TENSORFLOW_ONE_WIDTH,
    ORIGINAL_TORCH,
    Counterpart,
    Rule,
    counterpart,
)

TABLES = {
    "legacy_hf": LEGACY_HF,
    "legacy_keras": LEGACY_KERAS,
    "nvidia": NVIDIA,
    "original_tensorflow": ORIGINAL_TENSORFLOW,
    "original_torch": ORIGINAL_TORCH,
}


@pytest.mark.parametrize("table", TABLES)
def test_every_weight_has_a_place_in_every_table(table: str) -> None:
    config = TransfoXLConfig(
        vocab_size=30, cutoffs=[10, 20], d_model=8, d_embed=8, n_head=2, d_head=4, d_inner=8, n_layer=2, div_val=2
    )
    for name, _ in TransfoXLLMHeadModel(config).named_parameters():
        rules = [rule for rule in TABLES[table] if counterpart([rule], name, _Everything()) is not None]
        assert rules, name


class _Everything(frozenset):  # type: ignore[type-arg]
    def __contains__(self, name: object) -> bool:
        return True


def test_the_first_rule_that_finds_something_decides() -> None:
    rules = [Rule("a.{band}", "b.{band}", "transposed"), Rule("a.{rest}", "c.{rest}")]
    assert counterpart(rules, "a.3", ["b.3", "c.3"]) == Counterpart(["b.3"], "transposed", 0)
    assert counterpart(rules, "a.3", ["c.3"]) == Counterpart(["c.3"], "same", 0)
    assert counterpart(rules, "a.3", ["b.4"]) is None
    assert counterpart(rules, "b.3", ["b.3"]) is None


def test_a_layer_is_a_row_of_their_table() -> None:
    found = counterpart(ORIGINAL_TENSORFLOW, "transformer.layers.12.dec_attn.r_w_bias", ["transformer/r_w_bias"])
    assert found == Counterpart(["transformer/r_w_bias"], "layer", 12)


def test_the_parts_of_a_bias_are_joined_in_the_order_of_their_bands() -> None:
    parts = [f"transformer/adaptive_softmax/cutoff_{band}/b" for band in range(3)]
    found = counterpart(ORIGINAL_TENSORFLOW_ONE_WIDTH, "crit.out_layers.0.bias", set(parts))
    assert found == Counterpart(parts, "joined", 0)
