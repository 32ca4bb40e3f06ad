from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import transformer_xl  # noqa: F401  (the import registers the classes with transformers)
from transformer_xl.data.corpus import read_text
from transformer_xl.evaluation import evaluate
from transformer_xl.text.tokenizer_vocabulary import load_vocabulary
from transformer_xl.training import loop
from transformer_xl.training.loop import train
from transformer_xl.training.run_folder import load_run, read_metrics


def with_training(settings, **changes):
    return replace(settings, training=replace(settings.training, **changes))


def unigram_entropy(text: str) -> float:
    """Bits per character that a model without any context needs."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def test_a_small_model_learns_more_than_the_frequencies_of_characters(toy_run, tmp_path):
    score = train(toy_run, tmp_path / "out")
    assert score.bits_per_symbol < 0.5 * unigram_entropy(read_text(toy_run.text.train))


@pytest.mark.parametrize("unit", ["byte", "word", "bpe"])
def test_bytes_and_words_are_learned_as_well(unit, toy_run, tmp_path):
    settings = with_training(toy_run, steps=200)
    score = train(replace(settings, text=replace(settings.text, unit=unit)), tmp_path / "out")
    assert score.perplexity < 4


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "schedule": "linear"},
        {"optimizer": "sgd", "schedule": "plateau", "learning_rate": 0.1},
        {"optimizer": "adagrad", "schedule": "constant", "warm_up_steps": 6},
        {"optimizer": "muon", "schedule": "inverse_sqrt", "warm_up_steps": 6},
    ],
    ids=lambda changes: changes["optimizer"],
)
def test_every_optimizer_learns_more_than_the_frequencies_of_characters(changes, toy_run, tmp_path):
    score = train(with_training(toy_run, **changes), tmp_path / "out")
    assert score.bits_per_symbol < 0.9 * unigram_entropy(read_text(toy_run.text.train))


def test_the_folder_opens_with_auto_classes_and_carries_its_vocabulary(toy_run, tmp_path):
    score = train(toy_run, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    vocabulary = load_vocabulary(tmp_path / "out")
    assert type(model).__name__ == "TransfoXLLMHeadModel"
    assert model.config.vocab_size == len(vocabulary)
    text = read_text(toy_run.text.train)
    held_out = vocabulary.encode(text[round(len(text) * 0.95) :])
    assert evaluate(model, held_out, score.protocol).nats == pytest.approx(score.nats)


def test_the_same_settings_give_the_same_model(toy_run, tmp_path):
    for name in ("one", "two"):
        train(toy_run, tmp_path / name)
    one, two = (load_run(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_seed_gives_another_model(toy_run, tmp_path):
    scores = {train(with_training(toy_run, seed=seed, steps=3), tmp_path / str(seed)).nats for seed in (1, 2)}
    assert len(scores) == 2


def test_metrics_are_json_lines_of_learning_and_of_every_evaluation(toy_run, tmp_path):
    score = train(toy_run, tmp_path / "out")
    metrics = read_metrics(tmp_path / "out")
    validation = [line for line in metrics if "validation_loss" in line]
    assert [line["step"] for line in validation] == [20, 40, 60]
    assert min(line["validation_loss"] for line in validation) == score.loss
    assert all(line["protocol"] == str(score.protocol) for line in validation)
    learning = [line for line in metrics if "loss" in line]
    assert learning[-1]["loss"] < learning[0]["loss"]
    assert learning[-1]["tokens_per_second"] > 0


def test_the_best_model_is_kept_and_not_the_last(toy_run, tmp_path, monkeypatch):
    scores = []

    def evaluate_worse_and_worse(model, ids, protocol):
        scores.append(replace(evaluate(model, ids, protocol), nats=1.0 + len(scores)))
        return scores[-1]

    monkeypatch.setattr(loop, "evaluate", evaluate_worse_and_worse)
    assert train(toy_run, tmp_path / "kept") == scores[0]
    monkeypatch.undo()
    kept, _ = load_run(tmp_path / "kept")
    train(with_training(toy_run, evaluations=1), tmp_path / "last")
    last, _ = load_run(tmp_path / "last")
    assert not torch.equal(kept.crit.out_layers[0].bias, last.crit.out_layers[0].bias)


def test_a_run_by_the_clock_stops_in_time(toy_run, tmp_path):
    began = time.perf_counter()
    train(with_training(toy_run, minutes=0.02, evaluations=1), tmp_path / "out")
    assert 1.2 < time.perf_counter() - began < 10
    assert read_metrics(tmp_path / "out")[-1]["seconds"] == pytest.approx(1.2, abs=1)


def test_a_run_of_fewer_steps_than_evaluations_is_whole(toy_run, tmp_path):
    train(with_training(toy_run, steps=2, evaluations=5), tmp_path / "out")
    load_run(tmp_path / "out")
    assert sum("validation_loss" in line for line in read_metrics(tmp_path / "out")) == 2


def test_memory_is_carried_inside_an_epoch_and_dropped_at_its_end(toy_run, tmp_path, monkeypatch):
    seen = []
    fresh_model = loop.fresh_model

    def watched(*arguments):
        model = fresh_model(*arguments)
        model.register_forward_pre_hook(
            lambda _, __, named: seen.append(named["mems"]) if model.training else None, with_kwargs=True
        )
        return model

    monkeypatch.setattr(loop, "fresh_model", watched)
    train(toy_run, tmp_path / "out")
    segments_per_epoch = math.ceil(math.ceil((len(read_text(toy_run.text.train)) * 0.95 - 1) / 4) / 16)
    starts = [step for step, memory in enumerate(seen) if memory is None]
    assert starts == list(range(0, 60, segments_per_epoch))


def test_a_run_that_is_stopped_before_its_first_step_leaves_nothing(toy_run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fresh_model", interrupt)
    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        train(toy_run, tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_a_stopped_run_leaves_the_best_model_so_far(toy_run, tmp_path, monkeypatch):
    def evaluate_once(*arguments):
        monkeypatch.setattr(loop, "evaluate", interrupt)
        return evaluate(*arguments)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "evaluate", evaluate_once)
    with pytest.raises(KeyboardInterrupt):
        train(toy_run, tmp_path / "out")
    load_run(tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_mean_of_the_last_steps_is_validated_and_kept(toy_run, tmp_path):
    settings = with_training(
        toy_run, steps=8, evaluations=1, averaging="mean", averaging_start=0.5, save_minutes=0, keep_checkpoints=10
    )
    score = train(settings, tmp_path / "out")
    kept, vocabulary = load_run(tmp_path / "out")
    steps = [load_file(tmp_path / "out" / "checkpoints" / f"step-{step}" / "model.safetensors") for step in range(5, 9)]
    for name, parameter in kept.named_parameters():
        torch.testing.assert_close(parameter, torch.stack([step[f"/{name}"] for step in steps]).mean(0))
    held_out = vocabulary.encode((text := read_text(toy_run.text.train))[round(len(text) * 0.95) :])
    assert evaluate(kept, held_out, score.protocol).nats == pytest.approx(score.nats)


def test_with_half_loss_the_first_half_of_a_segment_teaches_nothing(toy_run, tmp_path, monkeypatch):
    seen = []
    learn = loop._Run._learn

    def watched(run, segment, *arguments):
        seen.append(segment.targets)
        return learn(run, segment, *arguments)

    monkeypatch.setattr(loop._Run, "_learn", watched)
    train(with_training(toy_run, steps=2, evaluations=1, half_loss=True), tmp_path / "out")
    assert all((targets[:, :8] == -100).all() and (targets[:, 8:] >= 0).any() for targets in seen)


def test_activations_that_cost_are_smaller_and_slower(toy_run, tmp_path):
    last = []
    for name, changes in (
        ("free", {}),
        ("dear", {"activation_regularization": 1.0}),
        ("slow", {"temporal_activation_regularization": 1.0}),
    ):
        train(with_training(toy_run, steps=30, evaluations=1, **changes), tmp_path / name)
        model, vocabulary = load_run(tmp_path / name)
        ids = torch.tensor([vocabulary.encode(read_text(toy_run.text.train)[:32]).tolist()])
        last.append(model(ids, output_hidden_states=True).hidden_states[-1])
    free, dear, slow = last
    assert dear.square().mean() < 0.9 * free.square().mean()
    assert slow.diff(dim=1).square().mean() < 0.9 * free.diff(dim=1).square().mean()


def test_the_learning_rate_of_a_step_follows_its_length_and_that_of_embeddings_is_their_own(
    toy_run, tmp_path, monkeypatch
):
    seen = []
    learn = loop._Run._learn

    def watched(run, segment, *arguments):
        seen.append((segment.inputs.shape[1], [group["lr"] for group in run.optimizer.param_groups]))
        return learn(run, segment, *arguments)

    monkeypatch.setattr(loop._Run, "_learn", watched)
    changes = {"schedule": "constant", "warm_up": 0.0, "scale_rate_by_length": True, "embedding_rate": 2.0}
    train(with_training(toy_run, steps=48, evaluations=1, **changes), tmp_path / "out")
    assert len({length for length, _ in seen}) == 2
    for length, (embeddings, *others) in seen:
        assert embeddings == pytest.approx(0.02 * length / 16)
        assert others == pytest.approx([0.01 * length / 16] * len(others))


def test_an_exploding_loss_stops_the_run_and_the_last_good_checkpoint_goes_on(toy_run, tmp_path):
    settings = with_training(
        toy_run, steps=40, evaluations=1, schedule="linear", warm_up=0.9, learning_rate=20.0, save_minutes=0
    )
    message = r"the loss has exploded to .* nats at step \d+ with a learning rate of .* and a gradient of norm .*; the "
    message += r"last good checkpoint is '.*step-(\d+)': try a lower learning_rate"
    with pytest.raises(FloatingPointError, match=message) as stop:
        train(settings, tmp_path / "out")
    diverged, good = map(int, re.search(r"at step (\d+) .*step-(\d+)'", str(stop.value)).groups())
    assert good == diverged - 2
    names = {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()}
    assert names >= {f"step-{good}", f"step-{good + 1}.diverged"}
    calmer = with_training(settings, learning_rate=1e-3)
    score = train(calmer, tmp_path / "out", resume=True, allow_changes=True)
    assert score.perplexity < 50


def test_a_validation_loss_that_is_not_finite_replaces_no_model(toy_run, tmp_path, monkeypatch):
    def evaluate_once(*arguments):
        monkeypatch.setattr(loop, "evaluate", lambda *arguments: replace(evaluate(*arguments), nats=math.nan))
        return evaluate(*arguments)

    monkeypatch.setattr(loop, "evaluate", evaluate_once)
    with pytest.raises(FloatingPointError, match=r"the validation loss is nan at step 40 .*step-20'"):
        train(toy_run, tmp_path / "out")
    load_run(tmp_path / "out")


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(toy_run, tmp_path):
    message = "step .* with a learning rate of .*; there is no checkpoint yet: try a lower learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        train(with_training(toy_run, learning_rate=1e30, clip_norm=1e30, warm_up=0.0), tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("length", "message"),
    [(64, "the training text has 61 symbols, but 4 streams .* need 65"), (1, "training text"), (0, "is empty")],
)
def test_a_text_that_is_too_short_is_refused(length, message, toy_run, tmp_path):
    Path(toy_run.text.train).write_text("x" * length, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        train(toy_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_validation_text_that_is_too_short_is_refused(toy_run, tmp_path):
    (tmp_path / "valid.txt").write_text("x", encoding="utf-8")
    settings = replace(toy_run, text=replace(toy_run.text, valid=str(tmp_path / "valid.txt")))
    with pytest.raises(ValueError, match="the validation text has 1 symbols"):
        train(settings, tmp_path / "out")


def test_a_picture_of_the_learning_curve_is_left(toy_run, tmp_path):
    pytest.importorskip("matplotlib")
    train(with_training(toy_run, steps=1), tmp_path / "out")
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_settings_are_written_beside_the_model(toy_run, tmp_path):
    train(with_training(toy_run, steps=1), tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "settings.json").read_text(encoding="utf-8"))
    assert saved["model"]["width"] == 32
