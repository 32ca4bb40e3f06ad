"""The authors' TensorFlow checkpoints, read without TensorFlow: weights, vocabulary, and what they say of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_xl.conversion.legacy_vocabulary import LegacyVocabulary, read_vocabulary
from transformer_xl.conversion.source_model import SourceModel
from transformer_xl.conversion.tensor_bundle import TensorBundle
from transformer_xl.weight_names import ORIGINAL_TENSORFLOW, ORIGINAL_TENSORFLOW_ONE_WIDTH

__all__ = ["checkpoint_prefix", "read_original_tf"]

INDEX = ".index"
CORPUS_FILE, CORPUS_INFO_FILE = "cache.pkl", "corpus-info.json"
EMBEDDING, SOFTMAX = "transformer/adaptive_embed", "transformer/adaptive_softmax"

# How the authors evaluate each released model (tf/sota/*.sh): mem_len and clamp_len, always with same_length.
EVALUATION = {"wt103": (1600, 1000), "enwik8": (3800, 1000), "text8": (3800, 1000), "lm1b": (128, -1)}


def checkpoint_prefix(path: Path) -> Path | None:
    """Return the path of a checkpoint without its ending, for a folder, a prefix or one of its files; None if none."""
    if path.name.endswith(INDEX) or re.search(r"\.(meta|data-\d{5}-of-\d{5})$", path.name):
        path = path.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name))
    if path.with_name(path.name + INDEX).is_file():
        return path
    for folder in (path, path / "model"):
        named = _named_by_checkpoint_file(folder)
        if named is not None and named.with_name(named.name + INDEX).is_file():
            return named
        indices = sorted(folder.glob(f"*{INDEX}"), key=_step)
        if indices:
            return indices[-1].with_name(indices[-1].name.removesuffix(INDEX))
    return None


def _named_by_checkpoint_file(folder: Path) -> Path | None:
    file = folder / "checkpoint"
    found = (
        re.search(r'^model_checkpoint_path: "([^"]+)"', file.read_text("utf-8", "replace"), re.MULTILINE)
        if file.is_file()
        else None
    )
    return folder / Path(found[1]).name if found else None


def _step(index: Path) -> int:
    found = re.search(r"-(\d+)\.index$", index.name)
    return int(found[1]) if found else -1


def read_original_tf(path: Path) -> SourceModel:
    """Return the model of a checkpoint of the authors' TensorFlow code.

    Args:
        path: The folder with the checkpoint, or the checkpoint (`model.ckpt-0`); `cache.pkl` and `corpus-info.json` are
            looked for beside it, and in a folder `data` beside or above it.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It is broken, or not of a Transformer-XL.
    """
    prefix = checkpoint_prefix(path)
    if prefix is None:
        raise FileNotFoundError(f"{str(path)!r} holds no checkpoint of TensorFlow: no file ends in {INDEX}")
    bundle = TensorBundle(prefix)
    shapes = {name: each.shape for name, each in bundle.variables.items()}
    weights = {name: _tensor(bundle, name) for name in shapes if _is_weight(name)}
    try:
        settings = _settings(shapes)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{str(prefix)!r} is no checkpoint of a Transformer-XL of the authors' code") from error
    folders = [prefix.parent, prefix.parent / "data", prefix.parent.parent / "data"]
    vocabulary, dataset = _vocabulary(folders), _dataset(folders)
    _fill_missing_projections(settings, weights)
    source = SourceModel(
        origin=f"the checkpoint of TensorFlow {str(prefix)!r}",
        settings={**settings, **_end_of_line(vocabulary), **_evaluation(dataset)},
        weights=weights,
        rules=ORIGINAL_TENSORFLOW_ONE_WIDTH
        if settings["div_val"] == 1 and settings["cutoffs"]
        else ORIGINAL_TENSORFLOW,
        vocabulary=vocabulary,
        already_split=True,
        guessed=frozenset(("mem_len", "clamp_len", "same_length")),
        guess=_about_evaluation(dataset),
    )
    others = [name for name in shapes if not _is_weight(name)]
    if others:
        source.dropped.append(f"{len(others)} variables of the optimiser and the step: training starts anew")
    if vocabulary is not None:
        source.dropped.append(f"the encoded text in {CORPUS_FILE}: a model folder holds no corpus (see read_corpus)")
    return source


def _is_weight(name: str) -> bool:
    return name.startswith("transformer/") and not re.search(r"/Adam(_1)?$|/ExponentialMovingAverage$", name)


def _tensor(bundle: TensorBundle, name: str) -> Tensor:
    return torch.from_numpy(bundle.read(name))


def _settings(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return what the shapes of the variables say; the rest are flags that no file records."""
    biases = shapes["transformer/r_w_bias"]
    (d_model,) = shapes["transformer/layer_0/rel_attn/LayerNorm/gamma"]
    (d_inner,) = shapes["transformer/layer_0/ff/layer_1/bias"]
    one_width = f"{EMBEDDING}/lookup_table" in shapes
    parts = f"{SOFTMAX}/cutoff_{{}}/b" if one_width else f"{EMBEDDING}/cutoff_{{}}/lookup_table"
    sizes = [shapes[name][0] for name in _numbered(parts, shapes)]
    first_table = shapes[f"{EMBEDDING}/lookup_table" if one_width else f"{EMBEDDING}/cutoff_0/lookup_table"]
    widths = [shapes[name][1] for name in _numbered(f"{EMBEDDING}/cutoff_{{}}/lookup_table", shapes)]
    num_bands = max(len(sizes), 1)
    tied = [_is_tied(band, one_width, num_bands, shapes) for band in range(num_bands)]
    return {
        "vocab_size": sum(sizes) or first_table[0],
        "cutoffs": list(accumulate(sizes[:-1])),
        "d_embed": first_table[1],
        "div_val": widths[0] // widths[1] if len(widths) > 1 else 1,
        "d_model": d_model,
        "d_inner": d_inner,
        "n_layer": len(_numbered("transformer/layer_{}/ff/layer_1/bias", shapes)),
        "n_head": biases[-2],
        "d_head": biases[-1],
        "untie_r": len(biases) == 3,
        "tie_projs": tied,
        "proj_share_all_but_first": all(tied[1:]),
        "layer_norm_epsilon": 1e-12,
    }


def _numbered(name: str, shapes: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    while name.format(len(names)) in shapes:
        names.append(name.format(len(names)))
    return names


def _is_tied(band: int, one_width: bool, num_bands: int, shapes: Mapping[str, Any]) -> bool:
    """Whether the output projection of a band is the embedding's: it has none of its own, but the embedding has one."""
    of_embedding = f"{EMBEDDING}/proj_W" if one_width else f"{EMBEDDING}/cutoff_{band}/proj_W"
    return of_embedding in shapes and f"{SOFTMAX}/cutoff_{band}/proj" not in shapes


def _fill_missing_projections(settings: Mapping[str, Any], weights: dict[str, Tensor]) -> None:
    """Put the identity where `proj_same_dim=False` leaves a projection out, because it would change no width."""
    if settings["div_val"] == 1:
        return
    for band in range(len(settings["cutoffs"]) + 1):
        width = settings["d_embed"] // settings["div_val"] ** band
        names = [f"{EMBEDDING}/cutoff_{band}/proj_W"]
        if not settings["tie_projs"][band]:
            names.append(f"{SOFTMAX}/cutoff_{band}/proj")
        for name in names:
            if name not in weights and width == settings["d_model"]:
                weights[name] = torch.eye(width)


def _vocabulary(folders: Sequence[Path]) -> LegacyVocabulary | None:
    file = next((folder / CORPUS_FILE for folder in folders if (folder / CORPUS_FILE).is_file()), None)
    return None if file is None else read_vocabulary(file)


def _dataset(folders: Sequence[Path]) -> str:
    file = next((folder / CORPUS_INFO_FILE for folder in folders if (folder / CORPUS_INFO_FILE).is_file()), None)
    if file is None:
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["dataset"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} cannot be read: it does not say which dataset it is about") from error


def _end_of_line(vocabulary: LegacyVocabulary | None) -> dict[str, int | None]:
    if vocabulary is None or "<eos>" not in vocabulary.symbols:
        return {"eos_token_id": None}
    return {"eos_token_id": vocabulary.symbols.index("<eos>")}


def _evaluation(dataset: str) -> dict[str, Any]:
    if dataset not in EVALUATION:
        return {}
    mem_len, clamp_len = EVALUATION[dataset]
    # With same_length each token sees mem_len + 1 positions in their TensorFlow code, and mem_len here.
    return {"mem_len": mem_len + 1, "clamp_len": clamp_len, "same_length": True}


def _about_evaluation(dataset: str) -> str:
    if dataset not in EVALUATION:
        return "mem_len, clamp_len and same_length are this library's defaults, as no file records them: use --set"
    mem_len, clamp_len = EVALUATION[dataset]
    return (
        f"mem_len, clamp_len and same_length, which no file records, are those of the authors' evaluation of {dataset} "
        f"({mem_len}, {clamp_len}, True); mem_len is {mem_len + 1}, since their tokens see one position more then"
    )
