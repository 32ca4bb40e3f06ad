"""The authors' PyTorch models, whole modules that were pickled, and NVIDIA's checkpoints: read without their code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer_xl.conversion.legacy_files import read_legacy_file
from transformer_xl.conversion.legacy_vocabulary import LegacyVocabulary, read_vocabulary, vocabulary_of
from transformer_xl.conversion.source_model import SourceModel
from transformer_xl.conversion.unpickling import StandIn, attributes, class_name
from transformer_xl.weight_names import NVIDIA, ORIGINAL_TORCH

__all__ = ["MODEL_CLASS", "NVIDIA_KEYS", "read_nvidia", "read_original_torch"]

MODEL_CLASS = "MemTransformerLM"
NVIDIA_KEYS = {"model_config", "model_state"}
MODEL_FILE, CORPUS_FILE = "model.pt", "cache.pt"
DEEPEST_MODULE = 16
LONGEST_NAME = 100
CLUSTERS_REVERSED = "the rows of the tail clusters are in reverse order: their column -i is our column i"
STARTS_EMPTY = "initial_memory is 'empty': their model starts with no memory, rather than with zeros"


def read_original_torch(path: Path, content: Any = None) -> SourceModel:
    """Return the model of a work folder of the authors' PyTorch code, or of its `model.pt`.

    Args:
        path: The folder, or the file.
        content: What `read_legacy_file` gave for the file, if somebody has read it already.

    Raises:
        FileNotFoundError: The folder holds no `model.pt`.
        ValueError: The file is broken, or holds no model of theirs.
    """
    folder, file = (path, path / MODEL_FILE) if path.is_dir() else (path.parent, path)
    model = _unwrapped(read_legacy_file(file) if content is None else content)
    if not class_name(model).endswith(f".{MODEL_CLASS}"):
        raise ValueError(f"{str(file)!r} holds no whole {MODEL_CLASS}, as the authors' train.py saves it")
    weights = _weights(model)
    fields = attributes(model)
    _refuse_sampled_softmax(fields, file)
    try:
        settings = _settings(model, weights)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{str(file)!r} holds a {MODEL_CLASS} that lacks {error}, so it cannot be converted"
        ) from error
    vocabulary = read_vocabulary(folder / CORPUS_FILE) if (folder / CORPUS_FILE).is_file() else None
    source = SourceModel(
        origin=f"the whole module in {str(file)!r}",
        settings={**settings, **_end_of_line(vocabulary)},
        weights=weights,
        rules=ORIGINAL_TORCH,
        vocabulary=vocabulary,
        already_split=True,
        changed=_changes(settings, weights),
        dropped=["the class and the code of the module: nothing of it was run"],
    )
    if vocabulary is not None:
        source.dropped.append(f"the encoded text in {CORPUS_FILE}: a model folder holds no corpus (see read_corpus)")
    if (folder / "optimizer.pt").is_file():
        source.dropped.append("optimizer.pt: training starts anew from the weights")
    return source


def read_nvidia(path: Path, content: Any = None) -> SourceModel:
    """Return the model of a checkpoint of NVIDIA's DeepLearningExamples, such as `checkpoint_best.pt`.

    Args:
        path: The file, or the folder with a `checkpoint_best.pt` or `checkpoint_last.pt`.
        content: What `read_legacy_file` gave for the file, if somebody has read it already.

    Raises:
        FileNotFoundError: The folder holds no such file.
        ValueError: The file is broken, or holds no model of theirs.
    """
    if path.is_dir():
        best, last = path / "checkpoint_best.pt", path / "checkpoint_last.pt"
        path = best if best.is_file() else last
    content = read_legacy_file(path) if content is None else content
    if type(content) is not dict or not content.keys() >= NVIDIA_KEYS:
        raise ValueError(f"{str(path)!r} is no checkpoint of NVIDIA's: it lacks {' or '.join(sorted(NVIDIA_KEYS))}")
    fields, weights = content["model_config"], content["model_state"]
    try:
        settings = _nvidia_settings(fields)
        _refuse_sampled_softmax(fields, path)
        weights = _nvidia_weights(weights, settings)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{str(path)!r} is a checkpoint of NVIDIA's that lacks {error}, so it cannot be converted"
        ) from error
    vocabulary = _vocabulary_or_none(content, path)
    others = sorted(str(name) for name in content.keys() - NVIDIA_KEYS - {"vocab"})
    return SourceModel(
        origin=f"the checkpoint of NVIDIA's in {str(path)!r}",
        settings={**settings, **_end_of_line(vocabulary)},
        weights=weights,
        rules=NVIDIA,
        vocabulary=vocabulary,
        already_split=True,
        changed=_changes(settings, weights),
        dropped=[f"{', '.join(others)}: training starts anew from the weights"] if others else [],
    )


def _nvidia_settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    sizes = ("n_layer", "n_head", "d_model", "d_head", "d_inner", "d_embed", "div_val", "cutoffs")
    lengths = ("tgt_len", "ext_len", "mem_len", "clamp_len", "same_length")
    tied_projections = list(fields["tie_projs"])
    return {
        **{name: fields[name] for name in (*sizes, *lengths, "attn_type", "pre_lnorm", "dropout", "dropatt")},
        "vocab_size": fields["n_token"],
        "untie_r": False,
        "tie_word_embeddings": fields["tie_weight"],
        "tie_projs": tied_projections,
        "proj_share_all_but_first": all(tied_projections[1:]),
        "initial_memory": "empty",
    }


def _nvidia_weights(state: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    weights = {name.removeprefix("module."): each for name, each in _entries(state) if isinstance(each, Tensor)}
    if settings["attn_type"] == 3:
        weights["r_emb"] = weights["r_emb"].unflatten(-1, (settings["n_head"], settings["d_head"]))
    # The projections of the embedding, a second time.
    return {name: weight for name, weight in weights.items() if not name.startswith("crit.shared_out_projs.")}


def _refuse_sampled_softmax(fields: Mapping[str, Any], file: Path) -> None:
    samples = fields.get("sample_softmax", -1)
    if type(samples) is int and samples > 0:
        raise ValueError(f"{str(file)!r} has a softmax of {samples} samples, which cannot be converted")


def _vocabulary_or_none(content: Mapping[str, Any], path: Path) -> LegacyVocabulary | None:
    fields = attributes(content.get("vocab"))
    return vocabulary_of(content, path) if "idx2sym" in fields or "sym2idx" in fields else None


def _end_of_line(vocabulary: LegacyVocabulary | None) -> dict[str, int | None]:
    known = vocabulary is not None and "<eos>" in vocabulary.symbols
    return {"eos_token_id": vocabulary.symbols.index("<eos>") if vocabulary is not None and known else None}


def _changes(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    changes = [STARTS_EMPTY]
    if settings["cutoffs"]:
        changes.append(CLUSTERS_REVERSED)
    dtypes = {weight.dtype for weight in weights.values() if weight.is_floating_point()} - {torch.float32}
    if dtypes:
        changes.append(f"weights in {', '.join(sorted(map(str, dtypes)))} are written as torch.float32")
    return changes


def _unwrapped(value: Any) -> Any:
    """Return the module within `DataParallel` and its like."""
    inner = attributes(value).get("_modules")
    return inner["module"] if isinstance(inner, dict) and list(inner) == ["module"] else value


def _weights(model: StandIn) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module and all modules within it, under the names of its state dict."""
    weights: dict[str, Tensor] = {}
    waiting, seen = [("", model, 0)], {id(model)}
    while waiting:
        prefix, module, depth = waiting.pop()
        fields = attributes(module)
        for kind in ("_parameters", "_buffers"):
            for name, weight in _entries(fields.get(kind)):
                if isinstance(weight, Tensor):
                    weights[f"{prefix}{name}"] = weight
        for name, inner in _entries(fields.get("_modules")):
            # A hostile file may hold a module within itself.
            if depth < DEEPEST_MODULE and id(inner) not in seen:
                seen.add(id(inner))
                waiting.append((f"{prefix}{name}.", inner, depth + 1))
    return weights


def _entries(table: Any) -> list[tuple[str, Any]]:
    if not isinstance(table, dict):
        return []
    return [(name, each) for name, each in table.items() if type(name) is str and len(name) <= LONGEST_NAME]


def _settings(model: StandIn, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the configuration, from the module's attributes and the shapes and identities of its weights."""
    fields = attributes(model)
    embedding = attributes(fields["_modules"]["word_emb"])
    first_layer = attributes(_inside(fields, "layers", "0"))
    attention, feed_forward = (attributes(first_layer["_modules"][name]) for name in ("dec_attn", "pos_ff"))
    cutoffs = list(embedding["cutoffs"])[:-1]
    tied_projections = [_same(weights, f"crit.out_projs.{i}", _projection(weights, i)) for i in range(len(cutoffs) + 1)]
    settings = {name: fields[name] for name in ("d_model", "d_embed", "n_head", "d_head", "n_layer", "attn_type")}
    settings |= {name: fields[name] for name in ("mem_len", "ext_len", "clamp_len", "same_length")}
    longest = (
        weights["r_emb"].shape[1] if "r_emb" in weights else fields["tgt_len"] + fields["ext_len"] + fields["mem_len"]
    )
    return {
        **settings,
        "vocab_size": fields["n_token"],
        "cutoffs": cutoffs,
        "div_val": embedding["div_val"],
        "d_inner": weights["layers.0.pos_ff.CoreNet.0.weight"].shape[0],
        "pre_lnorm": bool(attention["pre_lnorm"]),
        "dropout": attributes(fields["_modules"]["drop"])["p"],
        "dropatt": attributes(attention["_modules"]["dropatt"])["p"],
        "layer_norm_epsilon": attributes(feed_forward["_modules"]["layer_norm"]).get("eps", 1e-5),
        "tgt_len": longest - fields["ext_len"] - fields["mem_len"],
        "untie_r": False,
        "tie_word_embeddings": _same(weights, "crit.out_layers.0.weight", "word_emb.emb_layers.0.weight"),
        "tie_projs": tied_projections,
        "proj_share_all_but_first": all(tied_projections[1:]),
        "initial_memory": "empty",
    }


def _inside(fields: Mapping[str, Any], *path: str) -> Any:
    module: Any = None
    for name in path:
        module = fields["_modules"][name]
        fields = attributes(module)
    return module


def _projection(weights: Mapping[str, Tensor], band: int) -> str:
    name = f"word_emb.emb_projs.{band}"
    return name if name in weights else "word_emb.emb_projs.0"


def _same(weights: Mapping[str, Tensor], one: str, other: str) -> bool:
    """Whether two names are one weight: one place in the file."""
    return one in weights and other in weights and weights[one].data_ptr() == weights[other].data_ptr()
