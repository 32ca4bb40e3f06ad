"""Small models, and a model that runs another one over the segments of a text in one compiled step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.keras.folder import load_weights, named_variables

RELATIVE_TOLERANCE = 1e-5


def small_config(**fields: Any) -> TransfoXLConfig:
    """A configuration in which no term of the formula vanishes."""
    small = {
        "vocab_size": 40,
        "cutoffs": [10, 20],
        "d_model": 16,
        "d_embed": 16,
        "n_head": 2,
        "d_head": 6,
        "d_inner": 24,
        "div_val": 2,
        "n_layer": 2,
        "mem_len": 7,
        "clamp_len": 5,
        "dropout": 0.0,
        "init_std": 0.3,
        "proj_init_std": 0.3,
    }
    return TransfoXLConfig(**{**small, **fields})


def random_ids(batch_size: int, length: int, seed: int = 0) -> np.ndarray:
    """Token ids [B, T] of the small vocabulary, none of them 0."""
    return np.random.default_rng(seed).integers(1, 40, (batch_size, length)).astype("int32")


def numpy_weights(module: Any) -> dict[str, np.ndarray]:
    """The state dict of a PyTorch model as arrays of their own: JAX takes memory over, which PyTorch goes on using."""
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def same_weights(model: Any, module: Any) -> Any:
    """The Keras model with the weights of a PyTorch model."""
    load_weights(model, numpy_weights(module))
    return model


def assert_equal_numbers(ours: Any, expected: Any, what: str, tolerance: float = RELATIVE_TOLERANCE) -> None:
    """Fails unless the largest difference is at most 1e-5 of the largest expected number."""
    ours, expected = ops.convert_to_numpy(ours), ops.convert_to_numpy(expected)
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape} instead of {expected.shape}"
    difference, largest = np.abs(ours - expected).max(), np.abs(expected).max()
    assert difference <= tolerance * largest, f"{what}: differs by {difference:.3g} where {largest:.3g} is largest"


class GradientKeeper(keras.optimizers.Optimizer):
    """An optimizer that replaces every weight by its gradient, which so can be read on every backend."""

    def __init__(self) -> None:
        super().__init__(learning_rate=1.0)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Added, since gradients of embeddings come row by row on TensorFlow.
        self.assign(variable, ops.zeros(variable.shape, variable.dtype))
        self.assign_add(variable, gradient)


class Chain(keras.Model):
    """A model over consecutive segments, each on the memory that the one before returned."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.built = True

    def call(self, inputs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        mems, outputs = None, {}
        for number in sorted(inputs):
            # Scores of tokens cost little here, and the classifier has no such argument.
            scored = self.model(inputs[number], mems=mems, output_hidden_states=True, output_attentions=True)
            if "losses" in scored:
                unlabelled = {name: value for name, value in inputs[number].items() if name != "labels"}
                scored["prediction_scores"] = self.model(unlabelled, mems=mems).prediction_scores
            stacked = {
                name: ops.stack(list(value)) if isinstance(value, list | tuple) else value
                for name, value in scored.items()
            }
            outputs[number] = stacked
            mems = scored.mems
        return outputs

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        return sum(segment["loss"] for segment in y_pred.values())

    def outputs(self, segments: list[dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
        """What the model returns, segment by segment."""
        return self.predict_on_batch(numbered(segments))

    def gradients(self, segments: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The gradient of the sum of the losses by published name; the model's weights are lost."""
        self.compile(GradientKeeper())
        self.train_on_batch(numbered(segments))
        return {
            name: np.asarray(variable.numpy()).T if variable.name == "kernel" else np.asarray(variable.numpy())
            for name, variable in named_variables(self.model).items()
        }


def numbered(segments: list[dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Segments in a dict, since Keras takes a list of inputs for one input each."""
    return {str(number): segment for number, segment in enumerate(segments)}
