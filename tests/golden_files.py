"""Reads the files of tests/golden, and compares numbers with them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

GOLDEN_FOLDER = Path(__file__).resolve().parent / "golden"
RELATIVE_TOLERANCE = 1e-5


@dataclass
class GoldenFile:
    """A configuration, the weights, what went in and came out segment by segment, and the gradients of the sum."""

    config: dict[str, Any]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    segments: list[dict[str, torch.Tensor]] = field(default_factory=list)
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)


def golden_cases(prefix: str) -> list[str]:
    """The cases whose files start with `prefix`."""
    return sorted(path.stem.removeprefix(prefix) for path in GOLDEN_FOLDER.glob(f"{prefix}*.safetensors"))


def read_golden_file(name: str) -> GoldenFile:
    """One file of tests/golden."""
    with safe_open(GOLDEN_FOLDER / f"{name}.safetensors", framework="pt") as file:
        golden = GoldenFile(config=json.loads(file.metadata()["config"]))
        numbered: dict[str, dict[str, torch.Tensor]] = {}
        for key in sorted(file.keys()):
            group, _, rest = key.partition("/")
            if group in ("weights", "gradients"):
                getattr(golden, group)[rest] = file.get_tensor(key)
            elif rest:
                numbered.setdefault(group, {})[rest] = file.get_tensor(key)
            else:
                golden.arrays[key] = file.get_tensor(key)
    golden.segments = [numbered[number] for number in sorted(numbered)]
    return golden


def assert_equal_numbers(ours: torch.Tensor, golden: torch.Tensor, what: str) -> None:
    """Fails unless the largest difference is at most 1e-5 of the largest golden number."""
    assert ours.shape == golden.shape, f"{what}: shape {tuple(ours.shape)} instead of {tuple(golden.shape)}"
    difference, largest = (ours - golden).abs().max().item(), golden.abs().max().item()
    assert difference <= RELATIVE_TOLERANCE * largest, (
        f"{what}: differs by {difference:.3g} where {largest:.3g} is largest"
    )


def assert_equal_gradients(model: torch.nn.Module, golden: GoldenFile) -> None:
    """Fails unless every parameter of the model has the gradient of the golden file."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    compared = {id(parameters[name]) for name in golden.gradients}
    assert compared == {id(parameter) for parameter in model.parameters()}, "parameters differ"
    for name, gradient in golden.gradients.items():
        ours = parameters[name].grad
        assert_equal_numbers(torch.zeros_like(gradient) if ours is None else ours, gradient, f"gradient of {name}")
