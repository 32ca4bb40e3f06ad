"""What a reader finds in an old model, and how our model is made of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transformer_xl.conversion.legacy_vocabulary import LegacyVocabulary
from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel
from transformer_xl.modeling.model import TransfoXLModel, TransfoXLPreTrainedModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.weight_names import Counterpart, Rule, counterpart

__all__ = ["HEADS", "SourceModel", "build_model"]

LARGEST_SIZE = 2**32
# Weights may be tied in a file and untied in its configuration.
MOST_REPEATED = 4

HEADS: dict[str, type[TransfoXLPreTrainedModel]] = {
    "language model": TransfoXLLMHeadModel,
    "classifier": TransfoXLForSequenceClassification,
    "model without a head": TransfoXLModel,
}


@dataclass
class SourceModel:
    """A model as another program left it.

    Attributes:
        origin: What it is and where it was read, for the report.
        settings: The fields of `TransfoXLConfig` that it has.
        weights: Its weights under its own names.
        rules: The table of names.
        head: A key of `HEADS`.
        vocabulary: Its vocabulary, if one was found and a tokenizer has yet to be made of it.
        already_split: Whether it was trained on text that is split on white space, where `<eos>` is a line end.
        guessed: Fields among the settings that no file records, and `guess` says where they come from.
        changed: What is different in our folder and why, a sentence each.
        dropped: What does not come along and why, a sentence each.
    """

    origin: str
    settings: dict[str, Any]
    weights: Mapping[str, Tensor]
    rules: Sequence[Rule]
    head: str = "language model"
    vocabulary: LegacyVocabulary | None = None
    already_split: bool = False
    guessed: frozenset[str] = frozenset()
    guess: str = ""
    changed: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def build_model(source: SourceModel, changes: Mapping[str, Any]) -> tuple[TransfoXLPreTrainedModel, list[str]]:
    """Return our model with the weights of another one, and the names of those of its weights that were not needed.

    Args:
        source: What a reader found.
        changes: Fields of the configuration that the user decides.

    Raises:
        ValueError: A weight is missing or has another shape than the configuration says, or a field is unknown.
    """
    config = _configuration(source, changes)
    # First without numbers: what a file claims may be absurd, and is compared with what it has before anything is made.
    with torch.device("meta"):
        skeleton = HEADS[source.head](config)
    places = {name: _place(source, name, parameter.shape) for name, parameter in skeleton.named_parameters()}
    stored = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in source.weights.values()
    }
    if sum(parameter.numel() for parameter in skeleton.parameters()) > MOST_REPEATED * sum(stored.values()):
        raise ValueError(f"{source.origin} repeats a few numbers for far more weights")
    model = HEADS[source.head](config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_ours(places[name], source.weights))
    used = {name for place in places.values() for name in place.names}
    return model, sorted(source.weights.keys() - used - _tied(source, model))


def _configuration(source: SourceModel, changes: Mapping[str, Any]) -> TransfoXLConfig:
    known = inspect.signature(TransfoXLConfig).parameters.keys() - {"kwargs"}
    if changes.keys() - known:
        unknown = min(changes.keys() - known)
        raise ValueError(f"{unknown!r} is no field of the configuration: {', '.join(sorted(known))} are")
    try:
        config = TransfoXLConfig.from_dict({**source.settings, **changes})
        sizes: list[Any] = [
            config.n_layer,
            config.vocab_size,
            config.d_model,
            config.d_inner,
            config.n_head * config.d_head,
        ]
        sizes += [config.tgt_len + config.ext_len + config.mem_len, config.num_labels]
        sensible = all(type(size) is int and 0 < size < LARGEST_SIZE for size in sizes)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{source.origin} has settings of the wrong type: {str(error)[:100]}") from error
    if not sensible or config.n_layer > len(source.weights):
        raise ValueError(f"{source.origin} has absurd settings: its sizes are not those of its weights")
    return config


def _place(source: SourceModel, name: str, shape: torch.Size) -> Counterpart:
    """Return where a weight of ours is found, having seen that it has the right shape."""
    full_name = f"transformer.{name}" if source.head == "model without a head" else name
    found = counterpart(source.rules, full_name, source.weights.keys())
    if found is None:
        raise ValueError(f"{source.origin} has no weight for {full_name!r}: the file is not whole")
    try:
        actual = _ours(found, source.weights).shape
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"{source.origin} has a weight {found.names[0]!r} that makes no {full_name!r}") from error
    if actual != shape:
        raise ValueError(
            f"{source.origin} has a weight {found.names[0]!r} that makes a {full_name!r} of shape {tuple(actual)}, but "
            f"its configuration says {tuple(shape)}"
        )
    return found


def _ours(found: Counterpart, weights: Mapping[str, Tensor]) -> Tensor:
    weight = weights[found.names[0]]
    match found.how:
        case "transposed":
            return weight.t()
        case "reversed":
            return weight.flip(0)
        case "layer":
            return weight[found.layer]
        case "joined":
            return torch.cat([weights[name] for name in found.names])
    return weight


def _tied(source: SourceModel, model: TransfoXLPreTrainedModel) -> set[str]:
    """Return their names of weights that are the same as others: they came along under the other name."""
    names = model.state_dict().keys()
    prefixed = names if source.head != "model without a head" else [f"transformer.{name}" for name in names]
    found = [counterpart(source.rules, name, source.weights.keys()) for name in prefixed]
    return {name for each in found if each is not None for name in each.names}
