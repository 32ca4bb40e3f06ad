"""Transformer-XL (Dai et al. 2019) for current transformers and PyTorch.

Importing this package makes the Auto classes of transformers know `transfo-xl`. Names are loaded when first used, so
that the import itself needs neither torch nor transformers, nor Keras.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformer_xl.registration import register_with_transformers

if TYPE_CHECKING:
    from transformer_xl.modeling.adaptive import AdaptiveEmbedding, ProjectedAdaptiveLogSoftmax
    from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel
    from transformer_xl.modeling.model import TransfoXLModel, TransfoXLPreTrainedModel
    from transformer_xl.modeling.outputs import (
        TransfoXLLMHeadModelOutput,
        TransfoXLModelOutput,
        TransfoXLSequenceClassifierOutputWithPast,
    )
    from transformer_xl.pretrained_config import TransfoXLConfig
    from transformer_xl.sessions import Sampling, Session
    from transformer_xl.text.fast_tokenizer import TransfoXLTokenizerFast
    from transformer_xl.text.tokenizer import TransfoXLTokenizer
    from transformer_xl.training.trainer import Lanes, MemoryTrainer

__version__ = "0.1.0"

_HOMES = {
    "AdaptiveEmbedding": "transformer_xl.modeling.adaptive",
    "Lanes": "transformer_xl.training.trainer",
    "MemoryTrainer": "transformer_xl.training.trainer",
    "ProjectedAdaptiveLogSoftmax": "transformer_xl.modeling.adaptive",
    "Sampling": "transformer_xl.sessions",
    "Session": "transformer_xl.sessions",
    "TransfoXLConfig": "transformer_xl.pretrained_config",
    "TransfoXLForSequenceClassification": "transformer_xl.modeling.heads",
    "TransfoXLLMHeadModel": "transformer_xl.modeling.heads",
    "TransfoXLLMHeadModelOutput": "transformer_xl.modeling.outputs",
    "TransfoXLModel": "transformer_xl.modeling.model",
    "TransfoXLModelOutput": "transformer_xl.modeling.outputs",
    "TransfoXLPreTrainedModel": "transformer_xl.modeling.model",
    "TransfoXLSequenceClassifierOutputWithPast": "transformer_xl.modeling.outputs",
    "TransfoXLTokenizer": "transformer_xl.text.tokenizer",
    "TransfoXLTokenizerFast": "transformer_xl.text.fast_tokenizer",
}

# Not in __all__, so that a star import does without Keras.
_KERAS_NAMES = tuple(
    framework + name
    for framework in ("Keras", "TF")
    for name in (
        "AdaptiveEmbedding",
        "TransfoXLForSequenceClassification",
        "TransfoXLLMHeadModel",
        "TransfoXLLMHeadModelOutput",
        "TransfoXLModel",
        "TransfoXLModelOutput",
        "TransfoXLPreTrainedModel",
        "TransfoXLSequenceClassifierOutputWithPast",
    )
)

__all__ = [
    "AdaptiveEmbedding",
    "Lanes",
    "MemoryTrainer",
    "ProjectedAdaptiveLogSoftmax",
    "Sampling",
    "Session",
    "TransfoXLConfig",
    "TransfoXLForSequenceClassification",
    "TransfoXLLMHeadModel",
    "TransfoXLLMHeadModelOutput",
    "TransfoXLModel",
    "TransfoXLModelOutput",
    "TransfoXLPreTrainedModel",
    "TransfoXLSequenceClassifierOutputWithPast",
    "TransfoXLTokenizer",
    "TransfoXLTokenizerFast",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _KERAS_NAMES:
        return getattr(import_module("transformer_xl.keras"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_KERAS_NAMES])


register_with_transformers()
