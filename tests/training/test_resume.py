"""A run that was stopped or killed, and gone on with, ends as if nothing had happened: to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from transformer_xl.data.corpus import encode_corpus
from transformer_xl.training import loop
from transformer_xl.training.loop import train
from transformer_xl.training.run_folder import RunFolder, read_metrics
from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings
from transformer_xl.training.stopping import Stopped

from .processes import forkserver

STEPS = 24


@pytest.fixture(autouse=True)
def do_not_wait_for_the_disk(monkeypatch):
    """No power is cut here; a process that is killed leaves its files as they are."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def heed_ctrl_c():
    """Programs that a shell starts in the background ignore it, and so would the tests there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> RunSettings:
    """A run that draws random numbers, carries memory from step to step and reads its text more than once."""
    path = tmp_path_factory.mktemp("text") / "toy.txt"
    path.write_text("the cat sat on the mat and the dog lay on the rug.\n" * 20, encoding="utf-8")
    return RunSettings(
        TextSettings(str(path)),
        ModelSettings(num_layers=2, width=16, num_heads=2, inner_width=16, memory_length=12, dropout=0.1),
        TrainingSettings(segment_length=8, batch_size=6, steps=STEPS, evaluations=3, save_minutes=0),
    )


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    train(settings, out)
    return out


def content(out: Path) -> dict[str, bytes]:
    """All tensors that a run ends with."""
    last = out / "checkpoints" / f"step-{STEPS}"
    files = [out / "model.safetensors", *sorted(last.glob("*.safetensors"))]
    return {f"{file.name}: {name}": tensor.tobytes() for file in files for name, tensor in load_file(file).items()}


def assert_same(out: Path, undisturbed: Path) -> None:
    assert content(out) == content(undisturbed)
    timeless = [
        [{name: value for name, value in line.items() if "second" not in name} for line in read_metrics(folder)]
        for folder in (out, undisturbed)
    ]
    assert timeless[0] == timeless[1]


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, number: signal.Signals = signal.SIGINT) -> None:
    """Lets a signal come in the middle of a step."""
    learn = loop._Run._learn

    def interrupted(run, *arguments):
        if run.state.step == step:
            signal.raise_signal(number)
        return learn(run, *arguments)

    monkeypatch.setattr(loop._Run, "_learn", interrupted)


@pytest.mark.parametrize("step", [0, 9, 17])
def test_a_stopped_run_ends_as_one_that_was_never_stopped(step, settings, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        with pytest.raises(Stopped, match=f"stopped at step {step + 1}") as stop:
            train(settings, tmp_path / "out")
    assert stop.value.exit_code == 130
    train(None, tmp_path / "out", resume=True)
    assert_same(tmp_path / "out", undisturbed)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "averaging": "mean", "averaging_start": 0.5},
        {"optimizer": "adam", "averaging": "exponential", "averaging_start": 0.25, "averaging_decay": 0.9},
        {"optimizer": "sgd", "schedule": "plateau", "plateau_factor": 0.3, "activation_regularization": 0.1},
        {"optimizer": "adagrad", "schedule": "inverse_sqrt", "half_loss": True},
    ],
    ids=lambda changes: changes["optimizer"],
)
def test_every_optimizer_and_average_goes_on_to_the_bit(changes, settings, tmp_path, monkeypatch):
    settings = replace(
        settings,
        model=replace(settings.model, word_dropout=0.1, locked_output_dropout=0.2, sample_softmax=5),
        training=replace(settings.training, **changes),
    )
    train(settings, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        stop_at(18, patch)
        with pytest.raises(Stopped):
            train(settings, tmp_path / "out")
    train(None, tmp_path / "out", resume=True)
    assert_same(tmp_path / "out", tmp_path / "undisturbed")


def test_sigterm_saves_as_well(settings, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(12, patch, signal.SIGTERM)
        with pytest.raises(Stopped) as stop:
            train(replace(settings, training=replace(settings.training, save_minutes=10)), tmp_path / "out")
    assert stop.value.exit_code == 143
    train(settings, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(undisturbed)


def test_an_evaluation_is_given_up_and_repeated(settings, undisturbed, tmp_path, monkeypatch):
    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupted)
        with pytest.raises(Stopped, match="stopped at step 8"):
            train(settings, tmp_path / "out")
    train(settings, tmp_path / "out", resume=True)
    assert_same(tmp_path / "out", undisturbed)


def killed(settings: RunSettings, out: Path, is_time: Callable[[], bool]) -> bool:
    """Trains in a process that gets SIGKILL as soon as `is_time`; whether it came before the run was done."""
    process = forkserver().Process(target=train, args=(settings, out), kwargs={"resume": True})
    process.start()
    while process.is_alive() and not is_time():
        time.sleep(0.001)
    process.kill()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


def writing(out: Path, step: int, file: str) -> Callable[[], bool]:
    """Whether a file of a checkpoint of this step or a later one is being written."""

    def is_written() -> bool:
        try:
            unfinished = [path.parent.name for path in out.glob(f"checkpoints/.step-*.unfinished/{file}")]
        except FileNotFoundError:  # it got its name in between
            return False
        return any(int(name.split("-")[1].split(".")[0]) >= step for name in unfinished)

    return is_written


@pytest.mark.parametrize(("step", "file"), [(3, "*"), (9, "optimizer.safetensors"), (18, "manifest.json")])
def test_a_run_killed_in_the_middle_of_a_write_ends_as_one_that_was_never_killed(
    step, file, settings, undisturbed, tmp_path
):
    out = tmp_path / "out"
    assert killed(settings, out, writing(out, step, file))
    train(settings, out, resume=True)
    assert_same(out, undisturbed)


def after(out: Path, step: int, seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have gone since a step was done; step 0 is done at once."""

    def is_over() -> bool:
        metrics = out / "metrics.jsonl"
        if step and not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
            return False
        time.sleep(seconds)
        return True

    return is_over


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_a_run_killed_at_any_moments_ends_as_one_that_was_never_killed(moment, settings, undisturbed, tmp_path):
    draw = random.Random(moment)
    out = tmp_path / "out"
    first, second = sorted(draw.sample(range(STEPS - 6), 2))
    assert killed(settings, out, after(out, first, draw.uniform(0, 0.05 if first else 0.5)))
    killed(settings, out, after(out, second, draw.uniform(0, 0.2)))
    train(settings, out, resume=True)
    assert_same(out, undisturbed)


def test_a_finished_run_is_done_at_once(settings, undisturbed, monkeypatch):
    monkeypatch.setattr(loop._Run, "_step", None)
    score = train(None, undisturbed, resume=True)
    best = min(line["validation_loss"] for line in read_metrics(undisturbed) if "validation_loss" in line)
    assert score.loss == best


def test_a_run_begins_where_there_is_none_to_go_on_with(settings, undisturbed, tmp_path):
    train(settings, tmp_path / "out", resume=True)
    assert_same(tmp_path / "out", undisturbed)
    with pytest.raises(FileNotFoundError, match=r"there is no run in .*none' to go on with"):
        train(None, tmp_path / "none", resume=True)


@pytest.fixture
def stopped(settings, tmp_path, monkeypatch) -> Path:
    """A run that was stopped in its middle."""
    with monkeypatch.context() as patch:
        stop_at(14, patch)
        with pytest.raises(Stopped):
            train(settings, tmp_path / "out")
    return tmp_path / "out"


def test_a_folder_with_a_run_is_not_overwritten(settings, stopped):
    with pytest.raises(FileExistsError, match=r"go on with its run \(--resume\)"):
        train(settings, stopped)


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(settings, undisturbed, stopped, capsys):
    damaged = stopped / "checkpoints" / "step-15" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    train(settings, stopped, resume=True, show_progress=True)
    output = capsys.readouterr().out
    sentence = "the checkpoint of step 15 is damaged (optimizer.safetensors has another size): going on from step 14"
    assert sentence in output
    assert_same(stopped, undisturbed)


def test_a_run_without_a_whole_checkpoint_is_refused(settings, stopped):
    for path in stopped.glob("checkpoints/*/manifest.json"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no checkpoint is whole \(.*step 15 is damaged \(manifest.json is missing"):
        train(settings, stopped, resume=True)


def test_another_text_is_refused(settings, stopped, tmp_path):
    changed = replace(settings, text=replace(settings.text, train="builtin:shakespeare"))
    with pytest.raises(ValueError, match="the text cannot change while a run goes on"):
        train(changed, stopped, resume=True, allow_changes=True)


def test_a_corpus_that_was_tampered_with_is_refused(stopped):
    ids = stopped / "corpus" / "train.ids.npy"
    ids.write_bytes(ids.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"train.ids.npy in the corpus .* has changed"):
        train(None, stopped, resume=True)


def test_a_corpus_elsewhere_may_move_but_not_change(settings, undisturbed, tmp_path, monkeypatch):
    text = replace(settings.text, train=str(tmp_path / "corpus"))
    encode_corpus(settings.text, tmp_path / "corpus")
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        with pytest.raises(Stopped):
            train(replace(settings, text=text), tmp_path / "out")
    (tmp_path / "corpus").rename(tmp_path / "moved")
    moved = replace(settings, text=replace(text, train=str(tmp_path / "moved")))
    with pytest.raises(ValueError, match=r"train was .*corpus' and is .*moved'"):
        train(moved, tmp_path / "out", resume=True)
    other = replace(settings, text=replace(text, train=str(tmp_path / "other")))
    encode_corpus(replace(settings.text, unit="byte"), tmp_path / "other")
    with pytest.raises(ValueError, match="the corpus is not the one that the run began with"):
        train(other, tmp_path / "out", resume=True, allow_changes=True)
    train(moved, tmp_path / "out", resume=True, allow_changes=True)
    assert content(tmp_path / "out") == content(undisturbed)


def test_a_run_that_was_killed_before_its_first_step_begins_anew(settings, undisturbed, tmp_path):
    RunFolder(tmp_path / "out").claim(settings)
    (tmp_path / "out" / "settings.json").rename(tmp_path / "out" / ".settings.json.unfinished")
    train(settings, tmp_path / "out", resume=True)
    assert_same(tmp_path / "out", undisturbed)


def test_a_run_that_was_killed_while_its_text_was_encoded_begins_anew(settings, undisturbed, tmp_path):
    RunFolder(tmp_path / "out").claim(settings)
    train(None, tmp_path / "out", resume=True)
    assert_same(tmp_path / "out", undisturbed)


def changed_training(settings: RunSettings, **changes) -> RunSettings:
    return replace(settings, training=replace(settings.training, **changes))


def test_changed_settings_are_named_and_refused_unless_allowed(settings, stopped):
    changed = changed_training(settings, learning_rate=1e-4, steps=20)
    with pytest.raises(
        ValueError, match=r"steps was 24 and is 20; learning_rate was 0.003 and is 0.0001.*--allow-changes"
    ):
        train(changed, stopped, resume=True)
    train(changed, stopped, resume=True, allow_changes=True)
    assert read_metrics(stopped)[-1]["step"] == 20
    assert RunSettings.load(stopped) == changed


def test_what_cannot_change_is_refused_even_if_changes_are_allowed(settings, stopped):
    with pytest.raises(ValueError, match="batch_size cannot change while a run goes on"):
        train(changed_training(settings, batch_size=4), stopped, resume=True, allow_changes=True)
    wider = replace(settings, model=replace(settings.model, width=32))
    with pytest.raises(ValueError, match="the checkpoint holds another model"):
        train(wider, stopped, resume=True, allow_changes=True)


def test_how_often_a_run_is_saved_may_change_without_leave(settings, undisturbed, stopped):
    train(changed_training(settings, save_minutes=60, keep_checkpoints=5), stopped, resume=True)
    assert content(stopped) == content(undisturbed)
