"""Folders of transformers 4: `config.json` with weights of PyTorch, safetensors or TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transformer_xl.conversion.legacy_files import read_legacy_file
from transformer_xl.conversion.source_model import SourceModel
from transformer_xl.weight_names import LEGACY_HF, LEGACY_KERAS

__all__ = ["CONFIG_FILE", "VOCABULARY_FILES", "read_legacy_hf"]

CONFIG_FILE = "config.json"
# In the order in which they are preferred.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)
VOCABULARY_FILES = ("vocab.json", "vocab.txt", "vocab.pkl", "vocab.bin")


def read_legacy_hf(path: Path) -> SourceModel:
    """Return the model of a folder that transformers 4 saved, or `pytorch-pretrained-bert` before it.

    Raises:
        FileNotFoundError: A file that is needed is not in the folder.
        ValueError: A file is broken.
    """
    settings = _read_json(path / CONFIG_FILE)
    file = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{str(path)!r} holds no weights: give a folder with one of {', '.join(WEIGHT_FILES)}")
    keras = file.suffix == ".h5"
    weights = _read_keras(file) if keras else _read_weights(file)
    if any(name.startswith("score.") for name in weights):
        head = "classifier"
    else:
        head = "language model" if any(name.startswith("crit.") for name in weights) else "model without a head"
    without_head = head == "model without a head" and not keras
    others = [name for name in WEIGHT_FILES if name != file.name and (path / name).is_file()]
    return SourceModel(
        origin=f"the folder of transformers 4 {str(path)!r} with {file.name}",
        settings=settings,
        weights={f"transformer.{name}": weight for name, weight in weights.items()} if without_head else weights,
        rules=LEGACY_KERAS if keras else LEGACY_HF,
        head=head,
        dropped=[f"{', '.join(others)}: {file.name} has the weights"] if others else [],
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: give a folder that transformers saved")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: it is not JSON in UTF-8") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} cannot be read: it is no table of settings")
    return content


def _read_weights(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".json":
        names = _read_json(file).get("weight_map")
        parts = sorted(set(names.values())) if isinstance(names, dict) else []
        if not parts or any(type(part) is not str or Path(part).name != part for part in parts):
            raise ValueError(f"{str(file)!r} names no parts in its own folder")
        return {name: weight for part in parts for name, weight in _read_weights(file.parent / part).items()}
    try:
        weights = load_file(file) if file.suffix == ".safetensors" else read_legacy_file(file)
    except SafetensorError as error:
        raise ValueError(f"{str(file)!r} cannot be read: it is a broken or cut off file of safetensors") from error
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"{str(file)!r} holds no state dict: its values are not all tensors under a name")
    return weights


def _read_keras(file: Path) -> dict[str, Tensor]:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{str(file)!r} needs the package h5py: install it by `pip install h5py`") from error
    weights: dict[str, Tensor] = {}
    most_bytes = file.stat().st_size

    def visit(name: str, entry: Any) -> None:
        nonlocal most_bytes
        if not isinstance(entry, h5py.Dataset) or entry.dtype.kind != "f":
            return
        most_bytes -= entry.nbytes
        if most_bytes < 0 or entry.external or entry.is_virtual:
            raise ValueError(f"{str(file)!r} cannot be read: the numbers of {name[:80]!r} are not in it")
        # The first two parts are the group and the name of the model's class.
        path = "/".join(name.split("/")[2:]).removesuffix(":0")
        weights[path.replace("_._", ".").replace("/", ".")] = torch.from_numpy(entry[()])

    try:
        with h5py.File(file, "r") as content:
            content.visititems(visit)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{str(file)!r} cannot be read: it is a broken or cut off file of HDF5") from error
    return weights
