"""Tells the Auto classes of transformers about `transfo-xl`, without importing transformers before the user does."""

from __future__ import annotations

from types import ModuleType

import wrapt


def register_with_transformers() -> None:
    """Make the Auto classes know this package's classes as soon as transformers has loaded them, or now if it has."""
    wrapt.register_post_import_hook(_register_configuration, "transformers.models.auto.configuration_auto")
    wrapt.register_post_import_hook(_register_models, "transformers.models.auto.modeling_auto")
    wrapt.register_post_import_hook(_register_tokenizer, "transformers.models.auto.tokenization_auto")


def _register_configuration(configuration_auto: ModuleType) -> None:
    from transformer_xl.pretrained_config import TransfoXLConfig

    configuration_auto.AutoConfig.register(TransfoXLConfig.model_type, TransfoXLConfig, exist_ok=True)


def _register_models(modeling_auto: ModuleType) -> None:
    """Register the models as promises: transformers may be half imported here, so they cannot be imported yet."""
    from transformer_xl.pretrained_config import TransfoXLConfig

    for mapping, module, name in (
        (modeling_auto.MODEL_MAPPING, "model", "TransfoXLModel"),
        (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING, "heads", "TransfoXLLMHeadModel"),
        (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "heads", "TransfoXLForSequenceClassification"),
    ):
        model_class = wrapt.lazy_import(f"transformer_xl.modeling.{module}", name)
        mapping.register(TransfoXLConfig, model_class, exist_ok=True)
    # Trainer shifts labels for label smoothing if the class's name is in here, where `register` does not put it.
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(TransfoXLConfig.model_type, "TransfoXLLMHeadModel")


def _register_tokenizer(tokenization_auto: ModuleType) -> None:
    from transformer_xl.pretrained_config import TransfoXLConfig
    from transformer_xl.text.tokenizer import TransfoXLTokenizer

    tokenization_auto.AutoTokenizer.register(TransfoXLConfig, tokenizer_class=TransfoXLTokenizer, exist_ok=True)
