from __future__ import annotations

import json
import os
import random
import resource
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from transformer_xl.training.run_state import Checkpoints, random_states, restore_random_states

CPU = torch.device("cpu")


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2, accelerator=Accelerator(cpu=True))


def save(checkpoints: Checkpoints, step: int, best_step: int | None = None, size: int = 3) -> None:
    shared = {"run": {"step": step, "rate": 0.1, "best": None}, "model": {"weight": torch.full((size,), float(step))}}
    checkpoints.save(step, shared, {"memory": [torch.ones(2, step)]}, best_step)


def steps(checkpoints: Checkpoints) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints.folder.iterdir())


def test_what_was_saved_is_read_back(checkpoints):
    save(checkpoints, 7)
    checkpoint, sentences = checkpoints.newest()
    assert (checkpoint.step, sentences) == (7, [])
    assert checkpoint.shared["run"] == {"step": 7, "rate": 0.1, "best": None}
    assert torch.equal(checkpoint.shared["model"]["weight"], torch.full((3,), 7.0))
    assert torch.equal(checkpoint.own[0]["memory"][0], torch.ones(2, 7))


def test_without_any_checkpoint_there_is_none(checkpoints):
    assert checkpoints.newest() == (None, [])


def test_the_newest_ones_and_that_of_the_best_model_are_kept(checkpoints):
    for step in range(1, 6):
        save(checkpoints, step, best_step=2 if step > 1 else None)
    assert steps(checkpoints) == [2, 4, 5]


def test_a_checkpoint_gets_its_name_when_it_is_on_the_disk(checkpoints, monkeypatch):
    synced, rename = [], os.rename

    def watched(descriptor):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def rename_watched(*names):
        assert {"manifest.json", "model.safetensors", "process-0.json", ".step-3.unfinished"} <= set(synced)
        return rename(*names)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "rename", rename_watched)
    save(checkpoints, 3)
    assert synced[-1] == "checkpoints"


def test_no_pickle_is_written(checkpoints):
    save(checkpoints, 1)
    assert {path.suffix for path in checkpoints.folder.glob("*/*")} == {".json", ".safetensors"}


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "no manifest", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_named(harm, checkpoints):
    save(checkpoints, 1)
    save(checkpoints, 2)
    weights, manifest = (checkpoints.folder / "step-2" / name for name in ("model.safetensors", "manifest.json"))
    content = weights.read_bytes()
    if harm == "cut":
        weights.write_bytes(content[:-1])
    elif harm == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "missing":
        weights.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("{")
    checkpoint, (sentence,) = checkpoints.newest()
    assert checkpoint.step == 1
    assert sentence.startswith("the checkpoint of step 2 is damaged (")
    assert sentence.endswith("): going on from step 1")


def test_what_was_left_of_a_killed_write_is_removed_and_never_read(checkpoints):
    save(checkpoints, 1)
    shutil.copytree(checkpoints.folder / "step-1", checkpoints.folder / ".step-2.unfinished")
    assert checkpoints.newest()[0].step == 1
    save(checkpoints, 3)
    assert steps(checkpoints) == [1, 3]


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(checkpoints):
    for step in (1, 2, 9):
        save(checkpoints, step)
    (checkpoints.folder / "step-9" / "manifest.json").unlink()
    save(checkpoints, 3)
    assert steps(checkpoints) == [2, 3]


def test_a_full_disk_is_named_with_the_last_good_checkpoint(checkpoints):
    save(checkpoints, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"step 2 could not be written \(.*\); the last good .*step-1': make room"):
            save(checkpoints, 2, size=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-1"]
    assert checkpoints.newest()[0].step == 1


def test_a_folder_that_cannot_be_written_is_named(checkpoints):
    checkpoints.folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="step 1 could not be written"):
        save(checkpoints, 1)


def test_random_numbers_go_on_where_they_were():
    states = json.loads(json.dumps({name: random_states(CPU)[name] for name in ("numpy", "python")}))
    states["torch"] = random_states(CPU)["torch"]
    drawn = [random.random(), np.random.rand(), torch.rand(3).tolist()]
    restore_random_states(states, CPU)
    assert [random.random(), np.random.rand(), torch.rand(3).tolist()] == drawn
