"""Says in one sentence what is missing before Keras is imported."""

from __future__ import annotations

import os

BACKENDS = {
    "jax": "pip install 'transformer-xl[jax]'",
    "tensorflow": "pip install 'transformer-xl[tensorflow]'",
    "torch": "pip install 'transformer-xl[keras]'",
}


def check_keras() -> None:
    """Import Keras 3 on one of its three backends that can train.

    Raises:
        ImportError: Keras or its backend is not installed, is too old, or the environment asks for another one; the
            sentence names the variable or the command that helps.
    """
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise ImportError(
            "TF_USE_LEGACY_KERAS asks for Keras 2, but these models are written in Keras 3: unset it before the first "
            "import of tensorflow."
        )
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend and backend not in BACKENDS:
        raise ImportError(f"KERAS_BACKEND={backend} cannot train: set it to one of {', '.join(BACKENDS)}.")
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise ImportError(
                f"Keras is not installed: {BACKENDS.get(backend, BACKENDS['tensorflow'])} installs it."
            ) from error
        missing = error.name or backend
        install = BACKENDS.get(missing, BACKENDS["tensorflow"])
        raise ImportError(
            f"Keras runs on {missing}, which is not installed: {install} installs it, or set KERAS_BACKEND to one of "
            f"{', '.join(BACKENDS)} that is."
        ) from error
    if keras.__version__.startswith(("0.", "1.", "2.")):
        raise ImportError(f"Keras {keras.__version__} is installed, but version 3 is needed: pip install -U keras.")
    if keras.config.backend() not in BACKENDS:
        raise ImportError(
            f"Keras runs on {keras.config.backend()}, which cannot train: set KERAS_BACKEND to one of "
            f"{', '.join(BACKENDS)} before the first import of keras."
        )
