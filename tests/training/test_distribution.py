"""However a run is shared out over processes, micro-batches and devices, it learns the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transformer_xl.training import loop
from transformer_xl.training.loop import train
from transformer_xl.training.run_folder import read_metrics
from transformer_xl.training.settings import OPTIMIZERS, ModelSettings, RunSettings, TextSettings, TrainingSettings

from .processes import train_all_in_processes, train_in_processes

STEPS = 20


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> RunSettings:
    """A run without chance, whose optimiser does not magnify rounding, that reads its text more than once."""
    path = tmp_path_factory.mktemp("text") / "toy.txt"
    path.write_text("the cat sat on the mat and the dog lay on the rug.\n" * 20, encoding="utf-8")
    return RunSettings(
        TextSettings(str(path)),
        ModelSettings(num_layers=2, width=16, num_heads=2, inner_width=16, memory_length=12),
        TrainingSettings(
            segment_length=8,
            batch_size=8,
            steps=STEPS,
            evaluations=2,
            optimizer="sgd",
            learning_rate=0.1,
            save_minutes=0,
        ),
    )


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory) -> Path:
    """The run in one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    train(settings, out)
    return out


@pytest.fixture(scope="module")
def in_two(settings, tmp_path_factory) -> Path:
    """The run in two processes, with all of its checkpoints."""
    out = tmp_path_factory.mktemp("in_two") / "out"
    train_in_processes(2, with_training(settings, keep_checkpoints=100), out)
    return out


def with_training(settings: RunSettings, **changes) -> RunSettings:
    return replace(settings, training=replace(settings.training, **changes))


def assert_same_to_rounding(out: Path, alone: Path) -> None:
    losses = [
        {line["step"]: line["validation_loss"] for line in read_metrics(folder) if "validation_loss" in line}
        for folder in (out, alone)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name in ("model.safetensors", f"checkpoints/step-{STEPS}/model.safetensors"):
        ours, theirs = load_file(out / name), load_file(alone / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-6, msg=key)


def cut_back(out: Path, step: int, copy: Path) -> Path:
    """The run as it was when a checkpoint had just been written."""
    shutil.copytree(out, copy)
    for checkpoint in copy.glob("checkpoints/step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return copy


def test_two_processes_learn_what_one_does_which_can_go_on_with_their_run(settings, in_two, alone, tmp_path):
    assert_same_to_rounding(in_two, alone)
    by_step = {line["step"]: line["loss"] for line in read_metrics(alone) if "loss" in line}
    ends = [line for line in read_metrics(in_two) if "loss" in line]
    assert [line["step"] for line in ends] == [5, 10, 15, 20]
    for line in ends:
        steps = range(line["step"] - 4, line["step"] + 1)
        assert line["loss"] == pytest.approx(sum(by_step[step] for step in steps) / 5, rel=1e-5)
    out = cut_back(in_two, 5, tmp_path / "out")
    train(settings, out, resume=True)
    assert_same_to_rounding(out, alone)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_a_checkpoint_of_two_processes_goes_on_in_several(number, settings, in_two, alone, tmp_path):
    out = cut_back(in_two, 10, tmp_path / "out")
    train_in_processes(number, settings, out, resume=True)
    assert_same_to_rounding(out, alone)


@pytest.mark.slow
def test_a_model_that_is_shared_out_learns_the_same_and_goes_on_whole(settings, alone, tmp_path):
    sharded = with_training(settings, shard=True, keep_checkpoints=100)
    train_in_processes(2, sharded, tmp_path / "shared")
    assert_same_to_rounding(tmp_path / "shared", alone)
    train_in_processes(2, sharded, cut_back(tmp_path / "shared", 5, tmp_path / "again"), resume=True)
    assert_same_to_rounding(tmp_path / "again", alone)
    whole = cut_back(tmp_path / "shared", 10, tmp_path / "whole")
    train(settings, whole, resume=True, allow_changes=True)
    assert_same_to_rounding(whole, alone)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["copied", "shared out"])
def test_each_optimiser_and_average_learns_in_two_processes_what_it_does_in_one(shard, settings, tmp_path):
    quick = with_training(settings, save_minutes=10)
    runs = {
        **{name: with_training(quick, optimizer=name, learning_rate=0.01) for name in OPTIMIZERS if name != "sgd"},
        "mean": with_training(quick, averaging="mean", averaging_start=0.5),
        "exponential": with_training(quick, averaging="exponential", averaging_decay=0.9, averaging_start=0.25),
    }
    scores = train_all_in_processes(
        2, {tmp_path / "two" / name: with_training(run, shard=shard) for name, run in runs.items()}
    )
    for score, (name, run) in zip(scores, runs.items(), strict=True):
        # Muon rounds gradients to bfloat16, where the last bit of a sum may decide between two neighbours.
        rounding = 1e-4 if name == "muon" else 1e-6
        assert score.nats == pytest.approx(train(run, tmp_path / name).nats, rel=rounding), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_words_in_bands_are_learned_in_several_processes(number, settings, tmp_path):
    """A process whose rows hold no word of a band has a gradient for it all the same."""
    (tmp_path / "words.txt").write_text(" ".join(map(str, range(100))) + "\n" + "0 1 2 3 4 5 6 7\n" * 100)
    text = replace(settings.text, train=str(tmp_path / "words.txt"), unit="word")
    banded = replace(settings, text=text, model=replace(settings.model, cutoffs=(20, 60)))
    one = train(banded, tmp_path / "one")
    two = train_in_processes(2, with_training(banded, micro_batches=number), tmp_path / "two")
    assert two.nats == pytest.approx(one.nats, rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # inductor's own
@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batches": 4},
        {"gradient_checkpointing": True},
        {"memory_on_cpu": True},
        {"deterministic": True},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
        pytest.param({"micro_batches": 2, "gradient_checkpointing": True, "compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: " ".join(changes),
)
def test_what_saves_memory_or_time_does_not_change_what_is_learned(changes, settings, alone, tmp_path):
    train(with_training(settings, **changes), tmp_path / "out")
    assert_same_to_rounding(tmp_path / "out", alone)


def test_each_micro_batch_has_the_memory_of_its_own_rows(settings, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []
    learn = loop._Run._learn

    def watched(run, segment, index, counted):
        seen.append(segment.inputs)
        result = learn(run, segment, index, counted)
        with torch.no_grad():
            assert run.memories[index][0].shape[1] == len(segment.inputs) == 4
        return result

    monkeypatch.setattr(loop._Run, "_learn", watched)
    train(with_training(settings, micro_batches=2, steps=2, evaluations=1), tmp_path / "out")
    assert len(seen) == 4


def test_micro_batches_go_on_from_a_checkpoint_without_them(settings, alone, tmp_path):
    with_all = tmp_path / "all"
    train(with_training(settings, keep_checkpoints=100), with_all)
    out = cut_back(with_all, 7, tmp_path / "out")
    train(with_training(settings, micro_batches=2), out, resume=True, allow_changes=True)
    assert_same_to_rounding(out, alone)


def test_half_precision_learns_about_the_same(settings, alone, tmp_path):
    half = train(with_training(settings, precision="bf16"), tmp_path / "out")
    single = min(line["validation_loss"] for line in read_metrics(alone) if "validation_loss" in line)
    assert half.loss != single
    assert half.loss == pytest.approx(single, rel=0.02)
    again = train(settings, tmp_path / "single")
    assert again.loss == single


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="precision is fp16, which needs a CUDA GPU"):
        train(with_training(settings, precision="fp16"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_cannot_be_shared_evenly_are_refused(settings, tmp_path):
    message = "batch_size is 8, which 1 processes times 3 micro_batches cannot share evenly: give a multiple of 3"
    with pytest.raises(ValueError, match=message):
        train(with_training(settings, micro_batches=3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sharing_out_a_model_in_one_process_is_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="shard needs several processes"):
        train(with_training(settings, shard=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tracker_that_is_not_installed_is_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="tracker names 'abacus', which accelerate cannot find here"):
        train(with_training(settings, tracker="abacus"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_metrics_are_sent_to_tensorboard_as_well(settings, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(with_training(settings, tracker="tensorboard"), tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "transformer-xl"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation_loss")] == [10, 20]
    assert len(events.Scalars("loss")) == STEPS
