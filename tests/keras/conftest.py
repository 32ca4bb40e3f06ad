"""One backend for each process: PyTorch unless KERAS_BACKEND says otherwise."""

from __future__ import annotations

import os

import pytest

# Read by Keras, TensorFlow and XLA when they are first imported, which is after this file.
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Two devices, so that distribution has something to distribute; hasty compilation, since every test compiles anew.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)

pytest.importorskip("keras", reason="the Keras twin needs the extra `keras`", exc_type=ImportError)


@pytest.fixture(autouse=True)
def seed_keras():
    """Each test starts from the same seed of Keras."""
    import keras

    keras.utils.set_random_seed(0)
