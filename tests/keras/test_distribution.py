"""Several devices compute what one computes; Keras distributes on JAX only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from transformer_xl.keras.heads import KerasTransfoXLLMHeadModel

from .chain import random_ids, small_config

pytestmark = pytest.mark.skipif(keras.config.backend() != "jax", reason="Keras distributes on JAX only")
IDS = random_ids(4, 6)


@pytest.fixture
def mesh() -> Iterator[Any]:
    yield keras.distribution.DeviceMesh((2,), ["devices"], keras.distribution.list_devices("cpu")[:2])
    keras.distribution.set_distribution(None)


def losses() -> list[float]:
    keras.utils.set_random_seed(1)
    model = KerasTransfoXLLMHeadModel(small_config())
    model.compile(keras.optimizers.SGD(0.1))
    return model.fit(IDS, IDS, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]


def test_a_batch_may_be_shared_between_devices(mesh: Any) -> None:
    alone = losses()
    keras.distribution.set_distribution(keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False))
    np.testing.assert_allclose(losses(), alone, rtol=1e-5)


def test_a_model_may_be_shared_between_devices(mesh: Any) -> None:
    alone = losses()
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*/pos_ff/CoreNet_0/kernel"] = (None, "devices")
    layout[".*/pos_ff/CoreNet_3/kernel"] = ("devices", None)
    layout[".*/dec_attn/qkv_net/kernel"] = (None, "devices")
    keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layout))
    np.testing.assert_allclose(losses(), alone, rtol=1e-5)
