"""Transformer-XL (Dai et al. 2019) for current transformers and PyTorch.

Importing this package makes the Auto classes of transformers know `transfo-xl`. Names are loaded when first used, so
that the import itself needs neither torch nor transformers.
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

__version__ = "0.1.0"

_HOMES = {
    "AdaptiveEmbedding": "transformer_xl.modeling.adaptive",
    "ProjectedAdaptiveLogSoftmax": "transformer_xl.modeling.adaptive",
    "TransfoXLConfig": "transformer_xl.pretrained_config",
    "TransfoXLForSequenceClassification": "transformer_xl.modeling.heads",
    "TransfoXLLMHeadModel": "transformer_xl.modeling.heads",
    "TransfoXLLMHeadModelOutput": "transformer_xl.modeling.outputs",
    "TransfoXLModel": "transformer_xl.modeling.model",
    "TransfoXLModelOutput": "transformer_xl.modeling.outputs",
    "TransfoXLPreTrainedModel": "transformer_xl.modeling.model",
    "TransfoXLSequenceClassifierOutputWithPast": "transformer_xl.modeling.outputs",
}

__all__ = [
    "AdaptiveEmbedding",
    "ProjectedAdaptiveLogSoftmax",
    "TransfoXLConfig",
    "TransfoXLForSequenceClassification",
    "TransfoXLLMHeadModel",
    "TransfoXLLMHeadModelOutput",
    "TransfoXLModel",
    "TransfoXLModelOutput",
    "TransfoXLPreTrainedModel",
    "TransfoXLSequenceClassifierOutputWithPast",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_transformers()
