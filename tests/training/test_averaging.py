from __future__ import annotations

import copy

import pytest
import torch

from transformer_xl.training.averaging import Averaging


def wander(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))


@pytest.mark.parametrize(
    ("decay", "of_torch"),
    [(None, None), (0.9, torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))],
    ids=["mean", "exponential"],
)
def test_the_averages_are_torchs(decay, of_torch, model):
    expected = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=of_torch)
    averaging = Averaging(model, decay)
    for seed in range(5):
        wander(model, seed)
        expected.update_parameters(model)
        averaging.update()
    with averaging.applied():
        for ours, theirs in zip(model.parameters(), expected.module.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_model_gets_its_own_parameters_back_to_the_bit(model):
    averaging = Averaging(model)
    for seed in range(3):
        wander(model, seed)
        averaging.update()
    before = copy.deepcopy(model.state_dict())
    with averaging.applied():
        assert not torch.equal(model[0].weight, before["0.weight"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_before_the_first_step_the_model_is_as_it_is(model):
    averaging, before = Averaging(model), model[0].weight.clone()
    with averaging.applied():
        assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_loaded_state_goes_on_to_the_bit(decay, model):
    averaging, other = Averaging(model, decay), copy.deepcopy(model)
    for seed in range(3):
        wander(model, seed)
        averaging.update()
    other.load_state_dict(model.state_dict())
    again = Averaging(other, decay)
    again.load_state_dict(copy.deepcopy(averaging.state_dict()))
    for each, part in ((averaging, model), (again, other)):
        wander(part, 7)
        each.update()
    with averaging.applied(), again.applied():
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_tied_parameters_are_averaged_once():
    layer = torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(layer, layer)
    averaging = Averaging(model)
    averaging.update()
    assert list(averaging.state_dict()["averages"]) == ["0.weight", "0.bias"]
