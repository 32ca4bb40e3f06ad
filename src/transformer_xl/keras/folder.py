"""A model's weights under their published names: one folder for Keras and PyTorch, read and written without PyTorch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize
from safetensors.numpy import save_file
from transformers.utils.hub import cached_file

from transformer_xl.keras.distances import inverse_frequencies

FILE_NAME = "model.safetensors"
BODY = "transformer."
HEADS = ("crit.", "score.")
FREQUENCIES = "pos_emb.inv_freq"
PARAMETER_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


def published_name(path: str) -> str:
    """Return the name in the files of the weight at a path of Keras.

    Example:
        >>> published_name("model/transformer/layers_0/pos_ff/CoreNet_3/kernel")
        'transformer.layers.0.pos_ff.CoreNet.3.weight'
    """
    _, *parts, last = path.split("/")
    numbered = [re.sub(r"_(\d+)$", r".\1", part) for part in [*parts, PARAMETER_NAMES.get(last, last)]]
    return ".".join(numbered)


def named_variables(model: Any) -> dict[str, Any]:
    """Return the weights of a model by published name."""
    return {published_name(variable.path): variable for variable in model.weights if variable.name != "memory"}


def read_weights(name_or_path: str | Path) -> dict[str, np.ndarray]:
    """Return the weights of a folder or of a repository on the hub by their names in the file, as NumPy arrays.

    Raises:
        FileNotFoundError: There is no `model.safetensors`.
    """
    try:
        path = cached_file(str(name_or_path), FILE_NAME)
    except OSError as error:
        raise FileNotFoundError(
            f"{name_or_path} has no {FILE_NAME}: convert older files first, with `transformer-xl convert`."
        ) from error
    return {name: _array(tensor) for name, tensor in deserialize(Path(str(path)).read_bytes())}


def _array(tensor: Mapping[str, Any]) -> np.ndarray:
    """Return a tensor of the file; bfloat16, which NumPy lacks, as float32."""
    if tensor["dtype"] == "BF16":
        bits = np.frombuffer(tensor["data"], np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(tensor["shape"])
    dtype = {"F64": np.float64, "F32": np.float32, "F16": np.float16}.get(tensor["dtype"], np.int64)
    return np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])


def has_head(head_name: str | None, weights: Mapping[str, np.ndarray]) -> bool:
    """Whether the file has weights of this head, or none is wanted."""
    return head_name is None or any(name.startswith(f"{head_name}.") for name in weights)


def load_weights(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Give a model the weights of a file.

    A file without the model's head leaves the head new, with a warning; heads of other models are left aside.

    Raises:
        ValueError: Weights are missing, unexpected or of another shape; all are listed.
    """
    if not any(name.startswith(BODY) for name in weights):
        weights = {BODY + name: array for name, array in weights.items()}
    variables = named_variables(model)
    found = {name: array for name, array in weights.items() if not name.endswith(FREQUENCIES)}
    for alias, name in model.tied_weights().items():
        tied = found.pop(alias, None)
        if tied is not None:
            found.setdefault(name, tied)
    head = f"{model.head_name}."
    unexpected = [
        name for name in found.keys() - variables.keys() if not name.startswith(HEADS) or name.startswith(head)
    ]
    missing = list(variables.keys() - found.keys())
    if not has_head(model.head_name, weights):
        warnings.warn(f"The file has no {model.head_name}: it starts from random numbers, train it.", stacklevel=3)
        missing = [name for name in missing if not name.startswith(head)]
    wrong = [
        f"{name} {found[name].shape} instead of {_published_shape(variable)}"
        for name, variable in variables.items()
        if name in found and found[name].shape != _published_shape(variable)
    ]
    if missing or unexpected or wrong:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
        listed = "; ".join(f"{title}: {', '.join(sorted(names))}" for title, names in parts.items() if names)
        raise ValueError(f"The file and the configuration do not belong together: {listed}.")
    for name, variable in variables.items():
        if name in found:
            variable.assign(found[name].T if _is_transposed(variable) else found[name])


def save(model: Any, folder: Path) -> None:
    """Write the configuration and the weights of a model, tied ones once."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    prefix = "" if model.head_name else BODY
    arrays = {}
    for name, variable in named_variables(model).items():
        array = np.asarray(variable.numpy(), np.float32)
        arrays[name.removeprefix(prefix)] = np.ascontiguousarray(array.T if _is_transposed(variable) else array)
    # transformers 4 expects the frequencies, though they follow from the configuration.
    arrays[(BODY + FREQUENCIES).removeprefix(prefix)] = inverse_frequencies(model.config.d_model)
    save_file(arrays, folder / FILE_NAME, {"format": "pt"})


def _is_transposed(variable: Any) -> bool:
    """Whether Keras keeps this matrix the other way round."""
    return variable.name == "kernel"


def _published_shape(variable: Any) -> tuple[int, ...]:
    shape = tuple(variable.shape)
    return shape[::-1] if _is_transposed(variable) else shape
