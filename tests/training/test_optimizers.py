from __future__ import annotations

import copy
import io

import pytest
import torch

from transformer_xl.text.vocabulary import Vocabulary
from transformer_xl.training.fresh_model import fresh_model
from transformer_xl.training.optimizers import MuonWithAdamW, hidden_matrices, optimizer_for
from transformer_xl.training.settings import OPTIMIZERS, ModelSettings, TrainingSettings

RATE = 1e-2


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fresh_model(
        ModelSettings(num_layers=2, width=8, num_heads=2, inner_width=12, memory_length=4),
        Vocabulary("word", ["<unk>", "<eos>", *map(str, range(10))]),
        segment_length=4,
    )


def learn(model, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(12, (2, 5), generator=generator)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


class Both:
    """Two optimisers, one after the other."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_weight_matrices_decay(name, model):
    groups = optimizer_for(model, TrainingSettings(optimizer=name, weight_decay=0.1)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying = [names[id(each)] for group in groups if group["weight_decay"] == 0.1 for each in group["params"]]
    others = [names[id(each)] for group in groups if group["weight_decay"] == 0 for each in group["params"]]
    assert all(name.endswith("weight") for name in decaying)
    assert all("bias" in name or "layer_norm" in name for name in others)
    assert sorted(decaying + others) == sorted(names.values())


@pytest.mark.parametrize(
    ("name", "decay"), [("adamw", 0.1), ("muon", 0.1), ("adam", 0.0), ("sgd", 0.0), ("adagrad", 0.0)]
)
def test_decay_that_is_not_given_is_a_tenth_where_it_is_apart_from_the_gradient(name, decay, model):
    groups = optimizer_for(model, TrainingSettings(optimizer=name)).param_groups
    assert max(group["weight_decay"] for group in groups) == decay


@pytest.mark.parametrize(
    ("name", "of_torch"),
    [
        ("adamw", lambda groups: torch.optim.AdamW(groups, lr=RATE, betas=(0.8, 0.95), fused=True)),
        ("adam", lambda groups: torch.optim.Adam(groups, lr=RATE, betas=(0.8, 0.95), fused=True)),
        ("sgd", lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.7)),
        ("adagrad", lambda groups: torch.optim.Adagrad(groups, lr=RATE)),
    ],
)
def test_each_steps_as_torchs_own(name, of_torch, model):
    twin = copy.deepcopy(model)
    settings = TrainingSettings(
        optimizer=name, learning_rate=RATE, beta1=0.8, beta2=0.95, momentum=0.7, weight_decay=0.05
    )
    matrices = [p for name, p in twin.named_parameters() if p.dim() == 2 and "bias" not in name]
    others = [p for name, p in twin.named_parameters() if p.dim() == 1 or "bias" in name]
    expected = of_torch([{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}])
    learn(model, optimizer_for(model, settings), 4)
    learn(twin, expected, 4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_muon_moves_the_matrices_of_the_layers_and_adamw_the_rest(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden = {names[id(parameter)] for parameter in hidden_matrices(model)}
    assert hidden == {name for name in names.values() if ".layers." in name and name.endswith("weight")} - {
        name for name in names.values() if "layer_norm" in name
    }
    twin = copy.deepcopy(model)
    settings = TrainingSettings(optimizer="muon", learning_rate=RATE, momentum=0.9, weight_decay=0.05)
    matrices = hidden_matrices(twin)
    chosen = {id(parameter) for parameter in matrices}
    rest = [(name, parameter) for name, parameter in twin.named_parameters() if id(parameter) not in chosen]
    muon = torch.optim.Muon(matrices, lr=RATE, momentum=0.9, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [
            {"params": [p for name, p in rest if p.dim() == 2 and "bias" not in name], "weight_decay": 0.05},
            {"params": [p for name, p in rest if p.dim() == 1 or "bias" in name], "weight_decay": 0.0},
        ],
        lr=RATE,
        betas=(0.9, 0.99),
        fused=True,
    )
    learn(model, optimizer_for(model, settings), 3)
    learn(twin, Both(muon, adamw), 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loaded_state_goes_on_to_the_bit(name, model):
    settings = TrainingSettings(optimizer=name, learning_rate=RATE)
    optimizer = optimizer_for(model, settings)
    learn(model, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    learn(model, optimizer, 3, seed=2)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = type(model)(model.config)
    again.load_state_dict(saved["model"])
    resumed = optimizer_for(again, settings)
    resumed.load_state_dict(saved["optimizer"])
    learn(again, resumed, 3, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_learning_rate_of_the_groups_is_that_of_the_step(name, model):
    optimizer = optimizer_for(model, TrainingSettings(optimizer=name, weight_decay=0.0))
    before = copy.deepcopy(model.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    learn(model, optimizer, 1)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_torch_without_muon_is_told_in_one_sentence(model, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"optimizer is 'muon', but torch .* has none: install torch 2\.9"):
        optimizer_for(model, TrainingSettings(optimizer="muon"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_embeddings_may_learn_at_a_rate_of_their_own(name, model):
    groups = optimizer_for(model, TrainingSettings(optimizer=name, embedding_rate=2.0)).param_groups
    fast = [parameter for group in groups if group["rate"] == 2.0 for parameter in group["params"]]
    assert [id(parameter) for parameter in fast] == [id(model.transformer.word_emb.emb_layers[0].weight)]
    assert {group["rate"] for group in groups} == {1.0, 2.0}


def test_muon_takes_a_closure(model):
    optimizer = MuonWithAdamW(hidden_matrices(model), [{"params": [model.crit.out_layers[0].bias]}], lr=RATE)

    def closure():
        ids = torch.tensor([[1, 2, 3]])
        loss = model(ids, labels=ids).loss
        loss.backward()
        return loss

    assert optimizer.step(closure).isfinite()
