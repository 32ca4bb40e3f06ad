"""A new model for a vocabulary."""

from __future__ import annotations

from collections.abc import Sized

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.training.settings import ModelSettings

BAND_EDGES = (10_000, 40_000, 200_000)


def fresh_model(
    settings: ModelSettings, vocabulary: Sized, segment_length: int, extended_length: int = 0
) -> TransfoXLLMHeadModel:
    """A model with random weights that reads and writes the symbols of a vocabulary."""
    return TransfoXLLMHeadModel(fresh_config(settings, len(vocabulary), segment_length, extended_length))


def fresh_config(
    settings: ModelSettings, num_symbols: int, segment_length: int, extended_length: int = 0
) -> TransfoXLConfig:
    """The configuration of a new model.

    Unless the settings say otherwise, its memory starts empty, so that results do not depend on how a text is cut, and
    the adaptive softmax has a band from 10,000 symbols on; below, one plain softmax is faster, and a sampled one has
    none. No symbol ends a text: of words, `<eos>` is the end of a line.

    Raises:
        ValueError: The settings contradict each other or the vocabulary, such as cutoffs beyond its end.
    """
    cutoffs = settings.cutoffs
    if cutoffs is None:
        sampled = settings.sample_softmax > 0
        cutoffs = () if sampled else tuple(edge for edge in BAND_EDGES if edge < num_symbols)
    return TransfoXLConfig(
        vocab_size=num_symbols,
        cutoffs=cutoffs,
        sample_softmax=settings.sample_softmax,
        d_model=settings.width,
        d_embed=settings.embedding_width or settings.width,
        n_head=settings.num_heads,
        d_head=settings.head_width or settings.width // settings.num_heads,
        d_inner=settings.inner_width,
        div_val=settings.band_divisor,
        pre_lnorm=settings.pre_norm,
        n_layer=settings.num_layers,
        mem_len=settings.memory_length,
        clamp_len=settings.clamp_length,
        same_length=settings.same_length,
        proj_share_all_but_first=settings.tie_projections,
        dropout=settings.dropout,
        dropatt=settings.attention_dropout,
        word_dropout=settings.word_dropout,
        locked_input_dropout=settings.locked_input_dropout,
        locked_attention_dropout=settings.locked_attention_dropout,
        locked_feed_forward_dropout=settings.locked_feed_forward_dropout,
        locked_output_dropout=settings.locked_output_dropout,
        untie_r=not settings.share_biases,
        proj_init_std=settings.initial_projection_std,
        init_std=settings.initial_std,
        eos_token_id=None,
        initial_memory=settings.initial_memory,
        ext_len=extended_length,
        tgt_len=segment_length,
        share_position_projection=settings.share_position_projection,
        tie_word_embeddings=settings.tie_words,
    )
