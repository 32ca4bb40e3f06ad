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


class GradientSum(keras.optimizers.Optimizer):
    """An optimizer that leaves the weights as they are and adds up their gradients, so that any backend shows them."""

    def __init__(self) -> None:
        super().__init__(learning_rate=1.0)

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            super().build(variables)
            self.sums = [self.add_variable_from_reference(variable, name="sum") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_add(self.sums[self._get_variable_index(variable)], gradient)

    def of(self, variable: Any) -> np.ndarray:
        """The sum of the gradients of a weight."""
        return np.asarray(self.sums[self._get_variable_index(variable)].numpy())


class Chain(keras.Model):
    """A model over consecutive segments, each on the memory that the one before returned, compiled for one segment."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.built = True

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        options = {"logits_to_keep": 0} if self.model.head_name == "crit" else {}
        mems = {"mems": ops.unstack(inputs["mems"], axis=0)} if "mems" in inputs else {}
        output = self.model({**inputs, **mems}, output_hidden_states=True, output_attentions=True, **options)
        return {
            name: ops.stack(list(value)) if isinstance(value, list | tuple) else value for name, value in output.items()
        }

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        return y_pred["loss"]

    def replay(
        self, segments: list[dict[str, np.ndarray]]
    ) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        """What the model returns segment by segment, and the gradients of the sum of the losses by published name."""
        self.compile(GradientSum())
        outputs, config = [], self.model.config
        batch_size = len(next(segments[0][name] for name in ("input_ids", "inputs_embeds") if name in segments[0]))
        # The memory that the model begins with by itself, so that one shape is compiled.
        shape = (config.n_layer, config.mem_len, batch_size, config.d_model)
        mems = {"mems": np.zeros(shape, "float32")} if config.mem_len else {}
        for segment in segments:
            outputs.append(self.predict_on_batch({**segment, **mems}))
            self.train_on_batch({**segment, **mems})
            mems = {"mems": outputs[-1]["mems"]} if config.mem_len else {}
        gradients = {
            name: self.optimizer.of(variable).T if variable.name == "kernel" else self.optimizer.of(variable)
            for name, variable in named_variables(self.model).items()
        }
        return outputs, gradients
