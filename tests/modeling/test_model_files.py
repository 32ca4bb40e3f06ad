"""Initialisation, tying, files and resizing: nothing is left to chance, lost or executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import infer_auto_device_map
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel
from transformer_xl.modeling.model import TransfoXLModel

from .tiny_models import ATTENTION_TYPES, assert_close, random_ids, tiny_config, tiny_model

MODEL_CLASSES = (TransfoXLModel, TransfoXLLMHeadModel, TransfoXLForSequenceClassification)
KINDS: list[dict[str, Any]] = [
    *({"attn_type": attn_type} for attn_type in ATTENTION_TYPES),
    {"untie_r": False},
    {"cutoffs": [], "div_val": 1},
    {"div_val": 1, "d_embed": 32},
    {"d_embed": 32, "tie_projs": [True, False, True]},
    {"tie_word_embeddings": False},
    {"tie_word_embeddings": False, "tie_projs": [False] * 3, "untie_r": False},
]


def named_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """All names, also several of one parameter."""
    return dict(model.named_parameters(remove_duplicate=False))


def save(model: Any, folder: Path, **changes: Any) -> dict[str, Tensor]:
    """Saves the model and returns what the file holds; `changes` rewrite the configuration on disk."""
    model.save_pretrained(folder)
    if changes:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


# Initialisation


@pytest.fixture
def memory_full_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN, so that whatever is not initialised is seen."""
    names = ("empty", "empty_like", "empty_strided")
    for name in names:
        make = getattr(torch, name)

        def filled(*args: Any, make: Any = make, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        monkeypatch.setattr(torch, name, filled)
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda *args, **kwargs: new_empty(*args, **kwargs).fill_(float("nan")))


def uninitialised(model: Any) -> list[str]:
    return [name for name, t in model.state_dict().items() if t.is_meta or not t.isfinite().all()]


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.usefixtures("memory_full_of_nan")
def test_a_new_model_holds_no_uninitialised_number(model_class: type[Any], kind: dict[str, Any]) -> None:
    assert uninitialised(model_class(tiny_config(**kind))) == []


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("kept", ["nothing", "every second weight"])
@pytest.mark.usefixtures("memory_full_of_nan")
def test_what_a_file_lacks_is_initialised(kind: dict[str, Any], kept: str, tmp_path: Path) -> None:
    weights = save(TransfoXLLMHeadModel(tiny_config(**kind)), tmp_path)
    names = sorted(weights)[::2] if kept == "every second weight" else []
    rewrite(tmp_path, {name: weights[name] for name in names})
    for model_class in (TransfoXLLMHeadModel, TransfoXLForSequenceClassification):
        model = model_class.from_pretrained(tmp_path)
        assert uninitialised(model) == []
        state = model.state_dict()
        assert all(torch.equal(state[name], weights[name]) for name in names if name in state)


@pytest.mark.usefixtures("memory_full_of_nan")
def test_a_file_of_the_base_model_opens_in_every_class(tmp_path: Path) -> None:
    base = tiny_model(TransfoXLModel)
    base.save_pretrained(tmp_path)
    for model_class in MODEL_CLASSES:
        model = model_class.from_pretrained(tmp_path).eval()
        assert uninitialised(model) == []
        body = model if model_class is TransfoXLModel else model.transformer
        ids = random_ids(1, 4)
        assert torch.equal(body(ids).last_hidden_state, base(ids).last_hidden_state)


def big_model(**changes: Any) -> TransfoXLLMHeadModel:
    return TransfoXLLMHeadModel(
        tiny_config(
            vocab_size=600,
            cutoffs=[200],
            d_model=128,
            d_embed=128,
            n_head=8,
            d_head=16,
            d_inner=128,
            n_layer=1,
            **changes,
        )
    )


def is_projection(name: str) -> bool:
    return "emb_projs" in name or "out_projs" in name


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("init", ["normal", "uniform"])
def test_weights_are_drawn_as_the_configuration_says(attn_type: int, init: str) -> None:
    model = big_model(attn_type=attn_type, init=init, init_std=0.05, init_range=0.2, proj_init_std=0.3)
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        tolerance = 6 / values.numel() ** 0.5
        if name.endswith("layer_norm.weight"):
            assert abs(values.mean() - 1) < 0.05 * tolerance, name
            assert abs(values.std() / 0.05 - 1) < tolerance, name
        elif name.endswith((".bias", "cluster_bias", "transformer.r_bias")):
            assert not values.any(), name
        elif is_projection(name):
            assert abs(values.std() / 0.3 - 1) < tolerance, name
        elif init == "uniform":
            assert values.abs().max() <= 0.2, name
            assert abs(values.std() / (0.2 / 3**0.5) - 1) < tolerance, name
        else:
            assert abs(values.std() / 0.05 - 1) < tolerance, name
            assert values.abs().max() > 0.05, name


def test_the_score_of_the_classifier_is_drawn_as_other_weights_are() -> None:
    model = TransfoXLForSequenceClassification(tiny_config(d_model=256, num_labels=64, init_std=0.05))
    assert abs(model.score.weight.std() / 0.05 - 1) < 0.05


# Tying


def groups_of_one_parameter(model: Any) -> set[frozenset[str]]:
    """The sets of names that stand for the same parameter."""
    names: dict[int, set[str]] = {}
    for name, parameter in named_parameters(model).items():
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def pair(i: int, j: int, kind: str) -> frozenset[str]:
    """Output and input layer, or output and input projection."""
    suffix = ".weight" if kind == "layer" else ""
    return frozenset({f"crit.out_{kind}s.{i}{suffix}", f"transformer.word_emb.emb_{kind}s.{j}{suffix}"})


LAYERS = {pair(i, i, "layer") for i in range(3)}
SHARED_BIASES = {
    frozenset({f"transformer.{bias}", *(f"transformer.layers.{i}.dec_attn.{bias}" for i in range(2))})
    for bias in ("r_w_bias", "r_r_bias")
}
TIES: list[tuple[dict[str, Any], set[frozenset[str]]]] = [
    ({}, LAYERS | {pair(1, 1, "proj"), pair(2, 2, "proj")}),
    ({"proj_share_all_but_first": False}, LAYERS),
    ({"tie_projs": [True, False, True]}, LAYERS | {pair(0, 0, "proj"), pair(2, 2, "proj")}),
    ({"tie_word_embeddings": False}, {pair(1, 1, "proj"), pair(2, 2, "proj")}),
    ({"tie_word_embeddings": False, "proj_share_all_but_first": False}, set()),
    ({"div_val": 1}, {pair(0, 0, "layer")}),
    (
        {"div_val": 1, "d_embed": 32},
        {
            pair(0, 0, "layer"),
            frozenset({"crit.out_projs.1", "crit.out_projs.2", "transformer.word_emb.emb_projs.0"}),
        },
    ),
    ({"cutoffs": [], "div_val": 1}, {pair(0, 0, "layer")}),
    ({"untie_r": False, "div_val": 1}, {pair(0, 0, "layer")} | SHARED_BIASES),
    ({"untie_r": False, "tie_word_embeddings": False, "tie_projs": [False] * 3}, SHARED_BIASES),
]


@pytest.mark.parametrize(("changes", "ties"), TIES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_parameters_are_tied_exactly_as_configured_and_stay_so(
    changes: dict[str, Any], ties: set[frozenset[str]], tmp_path: Path
) -> None:
    model = tiny_model(**changes)
    assert groups_of_one_parameter(model) == ties
    weights = save(model, tmp_path)
    assert all(len(group & weights.keys()) == 1 for group in ties)
    opened = TransfoXLLMHeadModel.from_pretrained(tmp_path)
    assert groups_of_one_parameter(opened) == ties
    assert all(torch.equal(p, named_parameters(model)[name]) for name, p in named_parameters(opened).items())
    opened.resize_token_embeddings(60)
    assert groups_of_one_parameter(opened) == ties


@pytest.mark.parametrize(("changes", "ties"), TIES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_file_that_holds_every_name_is_tied_too(
    changes: dict[str, Any], ties: set[frozenset[str]], tmp_path: Path
) -> None:
    model = tiny_model(**changes)
    save(model, tmp_path)
    rewrite(tmp_path, {name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert groups_of_one_parameter(TransfoXLLMHeadModel.from_pretrained(tmp_path)) == ties


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_without_untie_r_all_layers_share_their_biases_in_every_class(model_class: type[Any], tmp_path: Path) -> None:
    tiny_model(model_class, untie_r=False).save_pretrained(tmp_path)
    for model in (tiny_model(model_class, untie_r=False), model_class.from_pretrained(tmp_path)):
        body = model if model_class is TransfoXLModel else model.transformer
        assert all(layer.dec_attn.r_w_bias is body.r_w_bias for layer in body.layers)
        assert all(layer.dec_attn.r_r_bias is body.r_r_bias for layer in body.layers)


def test_a_tied_parameter_learns_from_both_ends() -> None:
    model, ids = tiny_model(), random_ids(2, 6)
    model(ids, labels=ids).loss.backward()
    tied = model.crit.out_layers[0].weight.grad.clone()
    untied = tiny_model(tie_word_embeddings=False)
    untied.load_state_dict(model.state_dict())
    untied(ids, labels=ids).loss.backward()
    assert_close(tied, untied.crit.out_layers[0].weight.grad + untied.transformer.word_emb.emb_layers[0].weight.grad)


# Files


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_saved_model_opens_as_it_was(model_class: type[Any], kind: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(model_class, **kind)
    model.save_pretrained(tmp_path)
    opened, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert not opened.training
    assert opened.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())
    ids = random_ids(2, 4)
    assert torch.equal(opened(ids)[0], model(ids)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_open_in_their_own_dtype_or_another(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model().to(dtype)
    model.save_pretrained(tmp_path)
    opened = TransfoXLLMHeadModel.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())
    assert opened.dtype == dtype
    ids = random_ids(2, 4)
    assert torch.equal(opened(ids).logits, model(ids).logits)
    assert TransfoXLLMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_rounded_frequencies_in_a_file_do_not_spoil_the_positions(tmp_path: Path) -> None:
    model = tiny_model(mem_len=300)
    model.bfloat16().save_pretrained(tmp_path)
    opened = TransfoXLLMHeadModel.from_pretrained(tmp_path, dtype=torch.float32)
    ids = random_ids(1, 200)
    assert torch.equal(opened(ids).logits, model.float()(ids).logits)


@pytest.mark.parametrize("stored", [None, torch.full((8,), float("nan"))])
def test_the_table_of_frequencies_may_be_missing_or_wrong_in_a_file(stored: Tensor | None, tmp_path: Path) -> None:
    model = tiny_model()
    weights = save(model, tmp_path)
    del weights["transformer.pos_emb.inv_freq"]
    rewrite(tmp_path, weights if stored is None else weights | {"transformer.pos_emb.inv_freq": stored})
    opened, report = TransfoXLLMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    ids = random_ids(1, 4)
    assert torch.equal(opened(ids).logits, model(ids).logits)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_may_be_given(device_map: Any, tmp_path: Path) -> None:
    model = tiny_model(untie_r=False)
    model.save_pretrained(tmp_path)
    opened = TransfoXLLMHeadModel.from_pretrained(tmp_path, device_map=device_map).cpu()
    ids = random_ids(1, 4)
    assert torch.equal(opened(ids).logits, model(ids).logits)
    assert groups_of_one_parameter(opened) == groups_of_one_parameter(model)


@pytest.mark.parametrize("room", range(5000, 30_000, 5000))
def test_an_automatic_device_map_splits_no_layer(room: int) -> None:
    model = tiny_model(n_layer=3, tie_word_embeddings=False, tie_projs=[False] * 3)
    places = infer_auto_device_map(model, max_memory={"cpu": room}, no_split_module_classes=model._no_split_modules)
    assert [name for name in places if name.count(".") > 2 and name.startswith("transformer.layers.")] == []


def as_bin(model: Any, folder: Path, **extra: Any) -> None:
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({**model.state_dict(), **extra}, folder / "pytorch_model.bin")


def test_a_pytorch_model_bin_opens(tmp_path: Path) -> None:
    model = tiny_model()
    as_bin(model, tmp_path)
    opened, report = TransfoXLLMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert groups_of_one_parameter(opened) == groups_of_one_parameter(model)
    ids = random_ids(1, 4)
    assert torch.equal(opened(ids).logits, model(ids).logits)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_bin_file_with_an_object_in_it_is_refused_and_nothing_is_executed(tmp_path: Path) -> None:
    as_bin(tiny_model(), tmp_path, payload=Payload(tmp_path / "executed"))
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        TransfoXLLMHeadModel.from_pretrained(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_what_is_written_is_safetensors_without_any_pickle(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_language_model_opens_as_base_model_and_classifier_without_complaint(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    base, report = TransfoXLModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    _, report = TransfoXLForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert report["missing_keys"] == {"score.weight"}
    assert not report["unexpected_keys"]
    ids = random_ids(1, 4)
    assert torch.equal(base(ids).last_hidden_state, model.transformer(ids).last_hidden_state)


def test_weights_that_no_class_knows_are_reported(tmp_path: Path) -> None:
    weights = save(tiny_model(), tmp_path)
    rewrite(tmp_path, weights | {"transformer.layers.7.pos_ff.layer_norm.bias": torch.zeros(16)})
    _, report = TransfoXLLMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert report["unexpected_keys"] == {"transformer.layers.7.pos_ff.layer_norm.bias"}


# Resizing


@pytest.mark.parametrize("div_val", [1, 2])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("new_size", [43, 57])
def test_any_band_may_be_resized_and_old_tokens_keep_their_meaning(
    div_val: int, tied: bool, layer: int, new_size: int
) -> None:
    model = tiny_model(div_val=div_val, d_embed=32, tie_word_embeddings=tied)
    before = model.transformer.word_emb.bands[layer]
    old_ids = torch.arange(50)
    kept = (old_ids < min(before.stop, before.stop + new_size - 50)) | (old_ids >= before.stop)
    moved = torch.where(old_ids >= before.stop, old_ids + new_size - 50, old_ids)[kept]
    embedded, scores = model.transformer.word_emb(old_ids), model(inputs_embeds=torch.ones(1, 1, 16)).logits[0, 0]

    assert model.resize_token_embeddings(new_size, layer) is model.get_input_embeddings()
    assert model.config.vocab_size == model.transformer.word_emb.n_token == model.crit.n_token == new_size
    assert [band.start for band in model.config.bands[1:]] == model.config.cutoffs
    assert model.config.bands == model.transformer.word_emb.bands == model.crit.bands
    assert_close(model.transformer.word_emb(moved), embedded[kept])
    new_scores = model(inputs_embeds=torch.ones(1, 1, 16)).logits[0, 0]
    assert new_scores.shape == (new_size,)
    assert_close(new_scores.exp().sum(), torch.tensor(1.0))
    band = before._replace(start=0, stop=min(before.stop, before.stop + new_size - 50))
    within = [i for i in range(band.stop) if i >= before.start]
    assert_close(new_scores[within[1:]] - new_scores[within[0]], scores[within[1:]] - scores[within[0]])


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_a_resized_model_works_and_opens_again(model_class: type[Any], tmp_path: Path) -> None:
    model = tiny_model(model_class)
    model.resize_token_embeddings(53, layer=1)
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[52, 33, 32, 0]])
    assert torch.equal(model_class.from_pretrained(tmp_path)(ids)[0], model(ids)[0])


def test_new_rows_are_initialised_and_their_biases_are_zero() -> None:
    model = big_model(init_std=0.05)
    model.resize_token_embeddings(900)
    new = model.transformer.word_emb.emb_layers[1].weight[400:]
    assert abs(new.std() / 0.05 - 1) < 0.05
    assert not model.crit.out_layers[1].bias[400:].any()


def test_a_size_may_be_rounded_up_and_none_changes_nothing() -> None:
    model = tiny_model()
    model.resize_token_embeddings()
    assert model.config.vocab_size == 50
    model.resize_token_embeddings(51, pad_to_multiple_of=16)
    assert model.config.vocab_size == 64
    model.resize_token_embeddings(pad_to_multiple_of=50)
    assert model.config.vocab_size == 100


@pytest.mark.parametrize("layer", [3, -4])
def test_a_band_that_does_not_exist_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match=f"layer={layer} .*bands 0 to 2"):
        tiny_model().resize_token_embeddings(60, layer)


def test_a_band_may_not_be_emptied() -> None:
    with pytest.raises(ValueError, match="new_num_tokens=30 would leave 0 of the 20 tokens in band"):
        tiny_model().resize_token_embeddings(30)


# What transformers asks of a model


def test_the_embeddings_can_be_asked_for_and_replaced() -> None:
    for model_class in MODEL_CLASSES:
        model = tiny_model(model_class)
        body = model if model_class is TransfoXLModel else model.transformer
        assert model.get_input_embeddings() is body.word_emb
        other = tiny_model(model_class).get_input_embeddings()
        model.set_input_embeddings(other)
        assert body.word_emb is other
    model = tiny_model()
    assert model.get_output_embeddings() is model.crit.out_layers[-1]
