"""The random numbers that weights start from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

from transformer_xl.pretrained_config import TransfoXLConfig

_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silence() -> Iterator[None]:
    """Models built inside start from zeros: they are about to be filled from a file."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


@keras.saving.register_keras_serializable("transformer_xl")
class Noise(keras.initializers.Initializer):
    """Normal or uniform numbers around `center`, drawn by NumPy from the seed of `keras.utils.set_random_seed`.

    NumPy, since JAX compiles anew for every weight that Keras draws: seconds for a small model.

    Args:
        spread: Standard deviation, or half-width if `uniform`.
        center: Mean.
        uniform: Whether the distribution is uniform.
    """

    def __init__(self, spread: float, center: float = 0.0, uniform: bool = False) -> None:
        self.spread = spread
        self.center = center
        self.uniform = uniform

    def __call__(self, shape: Any, dtype: str | None = None) -> Any:
        """Return the numbers as a tensor."""
        if _silent.get():
            return keras.ops.zeros(shape, dtype)
        generator = np.random.default_rng(random.getrandbits(64))
        numbers = generator.uniform(-1, 1, shape) if self.uniform else generator.standard_normal(shape, np.float32)
        return keras.ops.convert_to_tensor(self.center + self.spread * numbers, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"spread": self.spread, "center": self.center, "uniform": self.uniform}


def weight_noise(config: TransfoXLConfig) -> Noise:
    """Return the initialiser of weights, as the configuration says."""
    return Noise(config.init_range, uniform=True) if config.init == "uniform" else Noise(config.init_std)


def gain_noise(config: TransfoXLConfig) -> Noise:
    """Return the initialiser of the gains of LayerNorm."""
    return Noise(config.init_std, center=1.0)
