"""Projections are made where they are needed, once, and by whatever stands in the place of a layer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transformer_xl.modeling import attention
from transformer_xl.modeling.distances import sinusoids
from transformer_xl.modeling.reading import Reader

from .tiny_models import ATTENTION_TYPES, assert_close, random_ids, read_in_segments, tiny_model


class Wrapper(nn.Module):
    """What an adapter library puts in the place of a linear layer."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.low_rank = nn.Parameter(torch.zeros(base_layer.out_features, base_layer.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + x @ self.low_rank.T


def wrap_all_projections(model: Any) -> list[Wrapper]:
    wrappers = []
    for layer in model.transformer.layers:
        for name, child in list(layer.dec_attn.named_children()):
            if isinstance(child, nn.Linear):
                wrappers.append(Wrapper(child))
                setattr(layer.dec_attn, name, wrappers[-1])
    return wrappers


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("pre_lnorm", [False, True])
def test_wrapped_projections_give_the_same_numbers_and_learn(attn_type: int, pre_lnorm: bool) -> None:
    model = tiny_model(attn_type=attn_type, pre_lnorm=pre_lnorm)
    mems, ids = model(random_ids(2, 6)).mems, random_ids(2, 4)
    expected = model(ids, mems=mems)
    wrappers = wrap_all_projections(model)
    output = model(ids, mems=mems)
    assert_close(output.logits, expected.logits)
    output.logits.sum().backward()
    assert len(wrappers) == 2 * {0: 3, 1: 2, 2: 3, 3: 3}[attn_type]
    assert all(wrapper.low_rank.grad.any() for wrapper in wrappers)


def shapes_of_products(monkeypatch: pytest.MonkeyPatch, model: Any, **inputs: Any) -> list[tuple[Tensor, torch.Size]]:
    """The weight and the shape of the input of every linear map of one forward."""
    products, linear = [], nn.functional.linear

    def recording(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        products.append((weight, x.shape))
        return linear(x, weight, bias)

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "linear", recording)
        model(**inputs)
    return products


@pytest.mark.parametrize("pre_lnorm", [False, True])
def test_of_the_memory_only_keys_and_values_are_projected(monkeypatch: pytest.MonkeyPatch, pre_lnorm: bool) -> None:
    model = tiny_model(pre_lnorm=pre_lnorm)
    inputs = {"input_ids": random_ids(2, 4), "mems": model(random_ids(2, 6)).mems}
    products = shapes_of_products(monkeypatch, model, **inputs)
    for layer in model.transformer.layers:
        joint = layer.dec_attn.qkv_net.weight
        of_queries = [shape for weight, shape in products if weight.data_ptr() == joint.data_ptr()]
        of_keys_and_values = [shape for weight, shape in products if weight.data_ptr() == joint[16:].data_ptr()]
        assert of_queries == [(2, 4, 16)]
        assert of_keys_and_values == [(2, 6, 16)]


@torch.no_grad()
def test_a_hook_on_the_projections_sees_those_of_the_memory_too() -> None:
    model = tiny_model()
    ids, mems = random_ids(2, 4), model(random_ids(2, 6)).mems
    hooked, doubled = copy.deepcopy(model), copy.deepcopy(model)
    for layer in hooked.transformer.layers:
        layer.dec_attn.qkv_net.register_forward_hook(lambda module, args, output: 2 * output)
    for layer in doubled.transformer.layers:
        layer.dec_attn.qkv_net.weight *= 2
    assert_close(hooked(ids, mems=mems).logits, doubled(ids, mems=mems).logits)


def test_distances_are_projected_once_for_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    products = shapes_of_products(monkeypatch, model, input_ids=random_ids(3, 4))
    for layer in model.transformer.layers:
        weight = layer.dec_attn.r_net.weight
        assert [shape for used, shape in products if used is weight] == [(10, 16)]


def test_layers_that_are_offloaded_to_the_disk_give_the_same_numbers(tmp_path: Path) -> None:
    model = tiny_model(n_layer=3)
    model.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(("transformer.word_emb", "transformer.pos_emb", "transformer.drop", "crit"), "cpu")
    places |= {"transformer.layers.0": "cpu", "transformer.layers.1": "disk", "transformer.layers.2": "disk"}
    offloaded = type(model).from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offloaded"
    )
    assert offloaded.transformer.layers[1].dec_attn.qkv_net.weight.device.type == "meta"
    with torch.no_grad():
        ids = random_ids(2, 5)
        assert_close(offloaded(ids).logits, model(ids).logits)
        assert_close(offloaded(ids, mems=model(ids).mems).logits, model(ids, mems=model(ids).mems).logits)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_flex_attention_can_be_chosen_and_gives_the_same() -> None:
    model = tiny_model()
    ids = random_ids(2, 7)
    expected = model(ids, output_attentions=True)
    model.set_attn_implementation("flex_attention")
    assert_close(model(ids).logits, expected.logits)
    for ours, weights in zip(model(ids, output_attentions=True).attentions, expected.attentions, strict=True):
        assert_close(ours, weights)


def test_training_goes_on_where_flex_attention_cannot_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(attention.logger, "warning_once", said.append)
    model, asked = tiny_model(), tiny_model()
    asked.load_state_dict(model.state_dict())
    asked.set_attn_implementation("flex_attention")
    ids = random_ids(2, 7)
    for each in (model, asked):
        each(ids, labels=ids).loss.backward()
    for ours, parameter in zip(asked.parameters(), model.parameters(), strict=True):
        assert_close(ours.grad, parameter.grad)
    assert set(said) == {
        "FlexAttention was asked for, but it has no gradients on the device cpu: another implementation takes its "
        "place."
    }


@pytest.mark.parametrize("settings", [{"mem_len": 6}, {"mem_len": 0, "ext_len": 4}], ids=str)
def test_a_shared_projection_is_the_ordinary_attention_with_those_weights(settings: dict[str, int]) -> None:
    shared = tiny_model(share_position_projection=True, initial_memory="empty", **settings)
    ordinary = tiny_model(initial_memory="empty", **settings)
    state = shared.state_dict()
    nearest = sinusoids(1, 16)[0]
    for i in range(2):
        query, key, _ = state[f"transformer.layers.{i}.dec_attn.qkv_net.weight"].chunk(3)
        state[f"transformer.layers.{i}.dec_attn.r_net.weight"] = key
        state[f"transformer.layers.{i}.dec_attn.r_w_bias"] = (query @ nearest).view(2, 8)
        state[f"transformer.layers.{i}.dec_attn.r_r_bias"] = (query @ nearest).view(2, 8)
    ordinary.load_state_dict(state)
    ids = random_ids(2, 18)
    expected, _ = read_in_segments(ordinary, ids, [7, 1, 10])
    ours, _ = read_in_segments(shared, ids, [7, 1, 10])
    assert_close(ours, expected)
    assert shared.num_parameters() == ordinary.num_parameters() - 2 * (16 * 16 + 2 * 16)


def test_a_shared_projection_reads_with_a_cache_what_it_reads_with_a_memory() -> None:
    model = tiny_model(share_position_projection=True, initial_memory="empty")
    ids, lengths = random_ids(2, 12), [7, 1, 1, 3]
    expected, _ = read_in_segments(model, ids, lengths)
    reader = Reader(model)
    with torch.no_grad():
        ours = torch.cat([reader.read(segment).logits for segment in ids.split(lengths, dim=1)], dim=1)
    assert reader.cache is not None
    assert_close(ours, expected)


def test_a_shared_projection_learns_what_it_projects_distances_with() -> None:
    model = tiny_model(share_position_projection=True).train()
    model(random_ids(2, 5), shift_labels=random_ids(2, 5)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_shared_projection_needs_distances_that_are_projected() -> None:
    with pytest.raises(ValueError, match="share_position_projection=True needs attn_type=0"):
        tiny_model(share_position_projection=True, attn_type=1)
