"""The configuration: the page's parameters, old files, and mistakes that are named."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_xl.configuration import Band, TransfoXLConfig, check_configuration, frequency_bands

PAGE = {
    "vocab_size": 267735,
    "cutoffs": [20000, 40000, 200000],
    "d_model": 1024,
    "d_embed": 1024,
    "n_head": 16,
    "d_head": 64,
    "d_inner": 4096,
    "div_val": 4,
    "pre_lnorm": False,
    "n_layer": 18,
    "mem_len": 1600,
    "clamp_len": 1000,
    "same_length": True,
    "proj_share_all_but_first": True,
    "attn_type": 0,
    "sample_softmax": -1,
    "adaptive": True,
    "dropout": 0.1,
    "dropatt": 0.0,
    "untie_r": True,
    "init": "normal",
    "init_range": 0.01,
    "proj_init_std": 0.01,
    "init_std": 0.02,
    "layer_norm_epsilon": 1e-05,
    "eos_token_id": 0,
}

# config.json of the released transfo-xl-wt103, but for its sizes.
RELEASED = {
    "adaptive": True,
    "architectures": ["TransfoXLLMHeadModel"],
    "attn_type": 0,
    "clamp_len": 1000,
    "cutoffs": [20, 40],
    "d_embed": 16,
    "d_head": 8,
    "d_inner": 32,
    "d_model": 16,
    "div_val": 4,
    "dropatt": 0.0,
    "dropout": 0.1,
    "eos_token_id": 0,
    "ext_len": 0,
    "init": "normal",
    "init_range": 0.01,
    "init_std": 0.02,
    "layer_norm_epsilon": 1e-05,
    "mem_len": 1600,
    "model_type": "transfo-xl",
    "n_head": 2,
    "n_layer": 2,
    "pre_lnorm": False,
    "proj_init_std": 0.01,
    "same_length": True,
    "sample_softmax": -1,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 250}},
    "tgt_len": 128,
    "tie_projs": [False, True, False],
    "tie_weight": True,
    "untie_r": True,
    "vocab_size": 100,
}


def test_the_parameters_of_the_page_stand_in_its_order_with_its_defaults() -> None:
    parameters = list(inspect.signature(TransfoXLConfig).parameters.values())[: len(PAGE)]
    assert [parameter.name for parameter in parameters] == list(PAGE)
    assert all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    config = TransfoXLConfig()
    assert {name: getattr(config, name) for name in PAGE} == PAGE


def test_parameters_may_be_given_by_position() -> None:
    config = TransfoXLConfig(100, [10, 40], 32, 16, 2, 8)
    assert (config.vocab_size, config.cutoffs, config.d_model, config.d_embed) == (100, [10, 40], 32, 16)
    assert (config.n_head, config.d_head) == (2, 8)


def test_the_general_names_of_transformers_work_for_reading_writing_and_as_keywords() -> None:
    config = TransfoXLConfig(n_token=300, cutoffs=[], hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
    assert (config.vocab_size, config.d_model, config.n_layer, config.n_head) == (300, 32, 3, 4)
    assert (config.n_token, config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (300, 32, 3, 4)
    config.num_hidden_layers = 5
    assert config.n_layer == 5


def test_a_mistake_in_a_general_name_is_refused_too() -> None:
    with pytest.raises(ValueError, match="n_layer=0"):
        TransfoXLConfig(num_hidden_layers=0)


def test_there_is_no_limit_of_sequence_length_and_none_can_be_set() -> None:
    config = TransfoXLConfig()
    assert config.max_position_embeddings == -1
    with pytest.raises(NotImplementedError, match="max_position_embeddings cannot be set to 512"):
        config.max_position_embeddings = 512


def test_an_old_file_opens_and_keeps_the_keys_that_nobody_knows_any_more(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(RELEASED))
    config = TransfoXLConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in RELEASED if name != "model_type"} == {
        name: value for name, value in RELEASED.items() if name != "model_type"
    }
    assert config.initial_memory == "zeros"
    assert config.tie_word_embeddings
    config.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: saved[name] for name in RELEASED} == RELEASED


def test_a_configuration_is_the_same_after_a_file(tmp_path: Path) -> None:
    config = TransfoXLConfig(
        100, [10, 40], 32, 16, div_val=2, initial_memory="empty", tgt_len=7, ext_len=3, pad_token_id=2, num_labels=5
    )
    config.save_pretrained(tmp_path)
    assert TransfoXLConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert TransfoXLConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_the_callers_list_of_cutoffs_is_not_kept() -> None:
    cutoffs = [10, 40]
    config = TransfoXLConfig(100, cutoffs, d_embed=16)
    cutoffs.append(90)
    assert config.cutoffs == [10, 40]
    assert TransfoXLConfig(100, (10, 40), d_embed=16).cutoffs == [10, 40]


@pytest.mark.parametrize(("share", "expected"), [(True, [False, True, True]), (False, [False] * 3)])
def test_tie_projs_follows_proj_share_all_but_first_unless_it_is_given(share: bool, expected: list[bool]) -> None:
    fields = {"vocab_size": 100, "cutoffs": [10, 40], "d_embed": 16, "proj_share_all_but_first": share}
    assert TransfoXLConfig(**fields).tie_projs == expected
    assert TransfoXLConfig(**fields, tie_projs=[True, False, True]).tie_projs == [True, False, True]


# A mistake, and all that the sentence has to name.
MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"cutoffs": [20, 10]}, ["cutoffs=[20, 10]", "increasing"]),
    ({"cutoffs": [10, 10]}, ["cutoffs=[10, 10]", "increasing"]),
    ({"cutoffs": [0, 10]}, ["cutoffs=[0, 10]", "positive"]),
    ({"cutoffs": [-5]}, ["cutoffs=[-5]", "positive"]),
    ({"cutoffs": [10, 100]}, ["cutoffs=[10, 100]", "vocab_size=100"]),
    ({"cutoffs": [200]}, ["cutoffs=[200]", "vocab_size=100"]),
    ({"adaptive": False}, ["adaptive=False", "cutoffs=[10, 40]"]),
    ({"d_embed": 24, "div_val": 4}, ["d_embed=24", "div_val=4"]),
    ({"d_embed": 2, "div_val": 2}, ["d_embed=2", "div_val=2"]),
    ({"tie_projs": [True]}, ["tie_projs=[True]", "cutoffs=[10, 40]", "3 bands"]),
    ({"attn_type": 4}, ["attn_type=4", "0 (Transformer-XL)", "3 (Al-Rfou et al.)"]),
    ({"attn_type": -1}, ["attn_type=-1"]),
    ({"d_model": 15}, ["d_model=15", "attn_type=0"]),
    ({"d_model": 15, "attn_type": 2}, ["d_model=15", "attn_type=2"]),
    ({"attn_type": 3, "n_head": 3}, ["attn_type=3", "n_head=3", "d_head=8", "d_model=16"]),
    ({"init": "xavier"}, ["init='xavier'", "normal", "uniform"]),
    ({"initial_memory": "full"}, ["initial_memory='full'", "zeros", "empty"]),
    *(
        ({name: value}, [f"{name}={value}"])
        for name in ("vocab_size", "d_model", "d_embed", "n_head", "d_head", "d_inner", "n_layer", "div_val", "tgt_len")
        for value in (0, -3)
    ),
    *(
        ({name: -1}, [f"{name}=-1"])
        for name in ("mem_len", "ext_len", "init_range", "init_std", "proj_init_std", "layer_norm_epsilon")
    ),
    *(({name: value}, [f"{name}={value}"]) for name in ("dropout", "dropatt") for value in (-0.1, 1.0, 1.5)),
]
FINE = {
    "vocab_size": 100,
    "cutoffs": [10, 40],
    "d_model": 16,
    "d_embed": 16,
    "n_head": 2,
    "d_head": 8,
    "d_inner": 32,
    "div_val": 2,
    "n_layer": 2,
}


@pytest.mark.parametrize(("mistake", "named"), MISTAKES, ids=str)
def test_a_mistake_is_refused_with_the_names_and_values_that_clash(mistake: dict[str, Any], named: list[str]) -> None:
    TransfoXLConfig(**FINE)
    with pytest.raises(ValueError, match=r"\.$") as refusal:
        TransfoXLConfig(**{**FINE, **mistake})
    message = str(refusal.value)
    assert [part for part in named if part not in message] == []
    assert "\n" not in message


def test_the_checks_need_nothing_but_attributes() -> None:
    fields = SimpleNamespace(**TransfoXLConfig(**FINE).to_dict())
    check_configuration(fields)
    fields.n_layer = 0
    with pytest.raises(ValueError, match="n_layer=0"):
        check_configuration(fields)


@given(st.lists(st.integers(1, 99), unique=True, max_size=4).map(sorted), st.sampled_from([1, 2, 4]))
def test_bands_cover_the_vocabulary_once_and_get_narrower(cutoffs: list[int], div_val: int) -> None:
    bands = frequency_bands(100, cutoffs, 256, div_val)
    assert [token for band in bands for token in range(band.start, band.stop)] == list(range(100))
    assert [band.start for band in bands[1:]] == cutoffs
    assert [band.width for band in bands] == [256 // div_val**i for i in range(len(bands))]
    assert sum(band.size for band in bands) == 100


def test_a_configuration_knows_its_bands() -> None:
    assert TransfoXLConfig(**FINE).bands == [Band(0, 10, 16), Band(10, 40, 8), Band(40, 100, 4)]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import transformer_xl.configuration

    with pytest.raises(AttributeError, match="no attribute 'TransfoXLConfiguration'"):
        _ = transformer_xl.configuration.TransfoXLConfiguration


SMALL_CORPUS_DROPOUTS = {
    "word_dropout": 0.1,
    "locked_input_dropout": 0.6,
    "locked_attention_dropout": 0.0,
    "locked_feed_forward_dropout": 0.2,
    "locked_output_dropout": 0.5,
}


def test_the_dropouts_of_small_corpora_are_in_the_files_of_models_that_have_them(tmp_path: Path) -> None:
    TransfoXLConfig(**SMALL_CORPUS_DROPOUTS).save_pretrained(tmp_path)
    loaded = TransfoXLConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in SMALL_CORPUS_DROPOUTS} == SMALL_CORPUS_DROPOUTS


def test_the_dropouts_of_small_corpora_are_not_in_the_files_of_other_models(tmp_path: Path) -> None:
    TransfoXLConfig().save_pretrained(tmp_path)
    assert not SMALL_CORPUS_DROPOUTS.keys() & json.loads((tmp_path / "config.json").read_text()).keys()


@pytest.mark.parametrize("name", SMALL_CORPUS_DROPOUTS)
def test_a_dropout_of_small_corpora_is_a_probability(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=1\.5 .*\[0, 1\)"):
        TransfoXLConfig(**{name: 1.5})
