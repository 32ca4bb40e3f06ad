"""The models in Keras 3, on TensorFlow, JAX or PyTorch, from the same folders as the PyTorch ones.

All arithmetic is `keras.ops`, so the three backends compute the same. Every class has two names: `KerasTransfoXLModel`,
and `TFTransfoXLModel` as transformers 4 called it. Set `KERAS_BACKEND` before the first import of Keras to choose.

Example:
    >>> from transformer_xl import TFTransfoXLLMHeadModel
    >>> model = TFTransfoXLLMHeadModel.from_pretrained("folder")  # a folder that either framework has saved
    >>> model.generate(input_ids, max_new_tokens=20)
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from transformer_xl.keras.requirements import check_keras

_HOMES = {
    "KerasAdaptiveEmbedding": "adaptive",
    "KerasTransfoXLForSequenceClassification": "heads",
    "KerasTransfoXLLMHeadModel": "heads",
    "KerasTransfoXLLMHeadModelOutput": "outputs",
    "KerasTransfoXLModel": "model",
    "KerasTransfoXLModelOutput": "outputs",
    "KerasTransfoXLPreTrainedModel": "pretrained",
    "KerasTransfoXLSequenceClassifierOutputWithPast": "outputs",
}

__all__ = sorted([*_HOMES, *(name.replace("Keras", "TF", 1) for name in _HOMES)])


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("TF"):
        _warn_of_another_backend(name)
    name = name.replace("TF", "Keras", 1) if name.startswith("TF") else name
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _warn_of_another_backend(name: str) -> None:
    import keras

    if keras.config.backend() != "tensorflow":
        warnings.warn(
            f"{name} works with TensorFlow's arrays only if Keras runs on TensorFlow, but it runs on "
            f"{keras.config.backend()}: set KERAS_BACKEND=tensorflow, or use the name "
            f"{name.replace('TF', 'Keras', 1)}.",
            stacklevel=3,
        )


check_keras()
