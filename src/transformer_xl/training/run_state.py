"""Checkpoints: all that a run needs to go on as if it had never stopped, each whole or not there.

A checkpoint is a folder `step-N` that is written under another name, synced and renamed. Tensors are safetensors,
everything else is JSON, and a manifest lists each file's checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

MANIFEST = "manifest.json"
TENSOR = "tensor"
State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: the state that all processes share, and of each of its processes its own."""

    step: int
    shared: State
    own: list[State]


class Checkpoints:
    """The checkpoints of a run, in a folder that all of its processes see.

    Args:
        folder: Where they lie; it is made with the first one.
        keep: How many of the newest to keep.
        accelerator: The processes of the run; all of them call `save` and `newest` together.
    """

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator) -> None:
        self.folder = folder
        self.keep = keep
        self.accelerator = accelerator

    def save(self, step: int, shared: Mapping[str, State], own: State, best_step: int | None) -> None:
        """Writes a checkpoint and removes those that are not to be kept: never that of `best_step`.

        Args:
            step: The step after which the run is in this state.
            shared: By name, what is the same in all processes; the main process writes it.
            own: What is this process's own.
            best_step: The step of the best model so far.

        Raises:
            OSError: It could not be written; the ones before are whole.
        """
        unfinished = self.folder / f".step-{step}.unfinished"
        is_main = self.accelerator.is_main_process
        try:
            if is_main:
                self.folder.mkdir(exist_ok=True)
                self._remove_unfinished()
                unfinished.mkdir()
            self.accelerator.wait_for_everyone()
            _write(unfinished, f"process-{self.accelerator.process_index}", own)
            if is_main:
                for name, state in shared.items():
                    _write(unfinished, name, state)
            self.accelerator.wait_for_everyone()
            if is_main:
                _seal(unfinished, {"step": step, "num_processes": self.accelerator.num_processes, "names": [*shared]})
                place = self._path(step)
                if place.exists():
                    shutil.rmtree(place)
                unfinished.rename(place)
                _sync(self.folder)
                self._rotate(step, best_step)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise OSError(
                f"the checkpoint of step {step:,} could not be written ({error}); {self.last_good()}: make room or "
                "mend the folder, then go on with --resume"
            ) from error
        self.accelerator.wait_for_everyone()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, or None if there is none at all; and a sentence for each damaged newer one.

        Raises:
            ValueError: There are checkpoints, but all of them are damaged.
        """
        found: list[Any] = [None, []]
        if self.accelerator.is_main_process:
            found = [*self._newest_whole_step()]
        broadcast_object_list(found)
        step, mistakes = found
        if step is None:
            if mistakes:
                raise ValueError(f"no checkpoint is whole ({'; '.join(mistakes)}): start a new run in another folder")
            return None, []
        folder = self._path(step)
        manifest = _read_json(folder / MANIFEST)
        shared = {name: _read(folder, name) for name in manifest["names"]}
        own = [_read(folder, f"process-{index}") for index in range(manifest["num_processes"])]
        return Checkpoint(step, shared, own), [f"{mistake}: going on from step {step:,}" for mistake in mistakes]

    def last_good(self) -> str:
        """Which checkpoint a run that has to stop here can go on from, as part of a sentence."""
        steps = self._steps()
        return f"the last good checkpoint is {str(self._path(steps[0]))!r}" if steps else "there is no checkpoint yet"

    def set_aside(self, trusted_step: int) -> None:
        """Renames the checkpoints after a step, so that a run goes on from the last one up to it, if there is one."""
        steps = self._steps()
        if self.accelerator.is_main_process and any(step <= trusted_step for step in steps):
            for step in steps:
                if step > trusted_step:
                    place = self._path(step).with_name(f"step-{step}.diverged")
                    shutil.rmtree(place, ignore_errors=True)
                    self._path(step).rename(place)
        self.accelerator.wait_for_everyone()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def _steps(self) -> list[int]:
        """The steps of all checkpoints, newest first."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted((int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name)), reverse=True)

    def _newest_whole_step(self) -> tuple[int | None, list[str]]:
        mistakes: list[str] = []
        for step in self._steps():
            mistake = _damage(self._path(step))
            if mistake is None:
                return step, mistakes
            mistakes.append(f"the checkpoint of step {step:,} is damaged ({mistake})")
        return None, mistakes

    def _rotate(self, step: int, best_step: int | None) -> None:
        """Removes what is too old, and damaged checkpoints of steps that the run has yet to repeat."""
        past = [other for other in self._steps() if other <= step]
        for other in {*self._steps()} - {*past[: self.keep], best_step}:
            shutil.rmtree(self._path(other))

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob(".step-*.unfinished"):
            shutil.rmtree(path)


def random_states(device: torch.device) -> State:
    """The states of all generators of random numbers that training draws from in this process."""
    states: State = {
        "torch": torch.get_rng_state(),
        "numpy": {**np.random.get_state(legacy=False)},
        "python": random.getstate(),
    }
    states["numpy"]["state"] = {"key": states["numpy"]["state"]["key"].tolist(), "pos": states["numpy"]["state"]["pos"]}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: State, device: torch.device) -> None:
    """Puts the generators of this process back to states that `random_states` returned."""
    torch.set_rng_state(states["torch"])
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {"key": key, "pos": numpy_state["state"]["pos"]}})
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _write(folder: Path, name: str, state: State) -> None:
    tensors: dict[str, Tensor] = {}
    described = _described(state, "", tensors)
    if tensors:
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(described), encoding="utf-8")


def _read(folder: Path, name: str) -> State:
    path = folder / f"{name}.safetensors"
    tensors = load_file(path) if path.exists() else {}
    state: State = _restored(_read_json(folder / f"{name}.json"), tensors)
    return state


def _described(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON, in which a tensor is the name that it gets in `tensors`."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().to("cpu").contiguous()
        return {TENSOR: path}
    if isinstance(value, dict):
        return {str(key): _described(each, f"{path}/{key}", tensors) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each, f"{path}/{i}", tensors) for i, each in enumerate(value)]
    return value


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return tensors[value[TENSOR]]
        return {key: _restored(each, tensors) for key, each in value.items()}
    if isinstance(value, list):
        return [_restored(each, tensors) for each in value]
    return value


def _seal(folder: Path, description: dict[str, Any]) -> None:
    """Writes the manifest and waits until all files of a folder are on the disk."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({**description, "files": files}, indent=2), encoding="utf-8")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    try:
        files = _read_json(folder / MANIFEST)["files"]
        for name, expected in files.items():
            if (folder / name).stat().st_size != expected["bytes"]:
                return f"{name} has another size"
            if _sha256(folder / name) != expected["sha256"]:
                return f"{name} has another checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
