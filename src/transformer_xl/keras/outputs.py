"""What the models return: named fields, of which those that are None are left out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar

import keras
from keras.src.tree.tree_api import register_tree_node_class


class NamedFields(dict):
    """Fields that can be read as attributes, by name, or by position as in a tuple.

    A field that is None is an attribute only. Every subclass is known to Keras and to JAX as a nested structure, so
    that compiled functions, functional models and `predict` can return it.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), **named: Any) -> None:
        given = {**dict(fields), **named}
        assert given.keys() <= set(self.names), given.keys()
        super().__init__((name, given[name]) for name in self.names if given.get(name) is not None)

    def __init_subclass__(cls) -> None:
        register_tree_node_class(cls)
        if keras.config.backend() == "jax":
            # Keras knows the class now, but transformations of JAX ask JAX itself.
            from jax import tree_util

            tree_util.register_pytree_node(cls, lambda self: (tuple(self.values()), tuple(self)), cls.tree_unflatten)

    def __getattr__(self, name: str) -> Any:
        if name in self.names:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}: its fields are {', '.join(self.names)}.")

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order."""
        return tuple(self.values())

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]:
        """Return values, names and path entries, for optree."""
        return tuple(self.values()), tuple(self), tuple(self)

    @classmethod
    def tree_unflatten(cls, names: Hashable, values: Iterable[Any]) -> NamedFields:
        """Return the fields that `tree_flatten` took apart; during transformations the values may be anything."""
        fields = cls()
        for name, value in zip(names, values, strict=True):  # type: ignore[call-overload]
            fields[name] = value
        return fields

    def torchtree_flatten(self) -> tuple[list[Any], tuple[str, ...]]:
        """Return values and names, for the PyTorch backend."""
        return list(self.values()), tuple(self)

    @classmethod
    def torchtree_unflatten(cls, values: Iterable[Any], names: Hashable) -> NamedFields:
        """Return the fields that `torchtree_flatten` took apart."""
        return cls.tree_unflatten(names, values)

    def torchtree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Return values with their names as path entries, for the PyTorch backend."""
        return list(self.items()), tuple(self)


class KerasTransfoXLModelOutput(NamedFields):
    """What `KerasTransfoXLModel` returns.

    `last_hidden_state` [B, T, D]; `mems`, for each layer its inputs at the last M positions [M, B, D], without
    gradient; `hidden_states`, L + 1 tensors [B, T, D], and `attentions`, L tensors [B, H, T, M + T], if asked for.
    """

    names = ("last_hidden_state", "mems", "hidden_states", "attentions")


class KerasTransfoXLLMHeadModelOutput(NamedFields):
    """What `KerasTransfoXLLMHeadModel` returns.

    `loss`, the mean over all labels that are not -100; `losses` in nats and token order, [B, T - 1] for `labels` and
    [B, T] for `shift_labels`; `prediction_scores`, log-probabilities [B, T, V]; the rest as in
    `KerasTransfoXLModelOutput`.
    """

    names = ("loss", "losses", "prediction_scores", "mems", "hidden_states", "attentions")

    @property
    def logits(self) -> Any:
        """The prediction scores: log-probabilities are logits of the same distribution."""
        return self.prediction_scores


class KerasTransfoXLSequenceClassifierOutputWithPast(NamedFields):
    """What `KerasTransfoXLForSequenceClassification` returns.

    `loss`, cross-entropy, binary cross-entropy or mean squared error; `logits` [B, number of labels]; the rest as in
    `KerasTransfoXLModelOutput`.
    """

    names = ("loss", "logits", "mems", "hidden_states", "attentions")
