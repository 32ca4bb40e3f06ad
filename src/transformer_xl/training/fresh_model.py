"""A new model for a vocabulary."""

from __future__ import annotations

from collections.abc import Sized

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.training.settings import ModelSettings

BAND_EDGES = (10_000, 40_000, 200_000)


def fresh_model(settings: ModelSettings, vocabulary: Sized, segment_length: int) -> TransfoXLLMHeadModel:
    """A model with random weights that reads and writes the symbols of a vocabulary.

    Its memory starts empty, so results do not depend on how a text is cut. The adaptive softmax has a band from 10,000
    symbols on; below, one plain softmax is faster. No symbol ends a text: of words, `<eos>` is the end of a line.
    """
    config = TransfoXLConfig(
        vocab_size=len(vocabulary),
        cutoffs=[edge for edge in BAND_EDGES if edge < len(vocabulary)],
        d_model=settings.width,
        d_embed=settings.width,
        n_head=settings.num_heads,
        d_head=settings.width // settings.num_heads,
        d_inner=settings.inner_width,
        div_val=1,
        pre_lnorm=settings.pre_norm,
        n_layer=settings.num_layers,
        mem_len=settings.memory_length,
        clamp_len=-1,
        same_length=False,
        dropout=settings.dropout,
        dropatt=settings.attention_dropout,
        eos_token_id=None,
        initial_memory="empty",
        tgt_len=segment_length,
    )
    return TransfoXLLMHeadModel(config)
