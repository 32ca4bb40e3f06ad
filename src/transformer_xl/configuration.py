"""What a Transformer-XL configuration means: the frequency bands and the checks of its values.

Nothing here imports torch or transformers. `TransfoXLConfig` itself extends a class of transformers, whose import
brings torch along, so it lives in `pretrained_config` and is fetched from there when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformer_xl.pretrained_config import TransfoXLConfig

__all__ = ["ATTENTION_TYPES", "INITIAL_MEMORIES", "Band", "TransfoXLConfig", "check_configuration", "frequency_bands"]

ATTENTION_TYPES = {0: "Transformer-XL", 1: "Shaw et al.", 2: "Vaswani et al.", 3: "Al-Rfou et al."}
INITIAL_MEMORIES = ("zeros", "empty")
INITIALISERS = ("normal", "uniform")

POSITIVE_FIELDS = ("vocab_size", "d_model", "d_embed", "n_head", "d_head", "d_inner", "n_layer", "div_val", "tgt_len")
NON_NEGATIVE_FIELDS = ("mem_len", "ext_len", "init_range", "init_std", "proj_init_std", "layer_norm_epsilon")
LOCKED_DROPOUT_FIELDS = (
    "locked_input_dropout",
    "locked_attention_dropout",
    "locked_feed_forward_dropout",
    "locked_output_dropout",
)
PROBABILITY_FIELDS = ("dropout", "dropatt", "word_dropout", *LOCKED_DROPOUT_FIELDS)


class Band(NamedTuple):
    """One band of the vocabulary: tokens of similar frequency that share an embedding width.

    The first band is the head (the most frequent tokens); each further band is a tail cluster of the adaptive softmax.

    Attributes:
        start: First token id of the band.
        stop: Token id after the last one.
        width: Width E of the band's embeddings.
    """

    start: int
    stop: int
    width: int

    @property
    def size(self) -> int:
        """Number of tokens in the band."""
        return self.stop - self.start


def frequency_bands(vocab_size: int, cutoffs: Sequence[int], d_embed: int, div_val: int) -> list[Band]:
    """Return the bands that `cutoffs` cut the vocabulary into, most frequent first.

    Band i holds embeddings of width `d_embed // div_val**i` (Grave et al. 2017; Baevski & Auli 2019).

    Example:
        >>> frequency_bands(100, [10, 40], d_embed=16, div_val=4)
        [Band(start=0, stop=10, width=16), Band(start=10, stop=40, width=4), Band(start=40, stop=100, width=1)]
    """
    edges = [0, *cutoffs, vocab_size]
    return [Band(start, stop, d_embed // div_val**i) for i, (start, stop) in enumerate(pairwise(edges))]


def check_configuration(config: Any) -> None:
    """Refuse values that contradict each other or cannot be.

    Args:
        config: Anything with the fields of `TransfoXLConfig` as attributes.

    Raises:
        ValueError: Names the fields and values that clash, what is allowed, and the way out.
    """
    _check_ranges(config)
    _check_bands(config)
    _check_attention(config)


def _check_ranges(config: Any) -> None:
    for name in POSITIVE_FIELDS:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} is not allowed: {name} must be at least 1.")
    for name in NON_NEGATIVE_FIELDS:
        if getattr(config, name) < 0:
            raise ValueError(f"{name}={getattr(config, name)} is not allowed: {name} must not be negative.")
    for name in PROBABILITY_FIELDS:
        if getattr(config, name) is not None and not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} is not allowed: a dropout probability lies in [0, 1).")
    if config.init not in INITIALISERS:
        raise ValueError(f"init={config.init!r} is not known: choose one of {', '.join(INITIALISERS)}.")
    if config.initial_memory not in INITIAL_MEMORIES:
        raise ValueError(
            f"initial_memory={config.initial_memory!r} is not known: choose one of {', '.join(INITIAL_MEMORIES)}."
        )


def _check_bands(config: Any) -> None:
    cutoffs = config.cutoffs
    if any(a >= b for a, b in pairwise([0, *cutoffs])):
        raise ValueError(f"cutoffs={cutoffs} must be positive and increasing: each cutoff begins a rarer band.")
    if cutoffs and cutoffs[-1] >= config.vocab_size:
        raise ValueError(
            f"cutoffs={cutoffs} reach past vocab_size={config.vocab_size}: every cutoff must be smaller than "
            "vocab_size, so drop the larger ones."
        )
    if cutoffs and not config.adaptive:
        raise ValueError(
            f"adaptive={config.adaptive} contradicts cutoffs={cutoffs}: a plain softmax has no bands, so pass "
            "cutoffs=[] or adaptive=True."
        )
    smallest = config.div_val ** len(cutoffs)
    if config.d_embed % smallest:
        raise ValueError(
            f"d_embed={config.d_embed} cannot be divided by div_val={config.div_val} to the power {len(cutoffs)} "
            f"(= {smallest}), the width of the last of {len(cutoffs) + 1} bands: choose a multiple, a smaller div_val "
            "or fewer cutoffs."
        )
    if len(config.tie_projs) != len(cutoffs) + 1:
        raise ValueError(
            f"tie_projs={config.tie_projs} has {len(config.tie_projs)} entries but cutoffs={cutoffs} make "
            f"{len(cutoffs) + 1} bands: give one entry for each band."
        )


def _check_attention(config: Any) -> None:
    if config.attn_type not in ATTENTION_TYPES:
        known = ", ".join(f"{number} ({name})" for number, name in ATTENTION_TYPES.items())
        raise ValueError(f"attn_type={config.attn_type!r} is not known: choose one of {known}.")
    if config.share_position_projection and config.attn_type != 0:
        raise ValueError(
            f"share_position_projection=True needs attn_type=0, whose distances are projected, but attn_type is "
            f"{config.attn_type}: choose one of the two."
        )
    if config.attn_type in (0, 2) and config.d_model % 2:
        raise ValueError(
            f"d_model={config.d_model} is odd, but the sinusoids of attn_type={config.attn_type} come in pairs of sine "
            "and cosine: choose an even d_model."
        )
    if config.attn_type == 3 and config.n_head * config.d_head != config.d_model:
        raise ValueError(
            f"attn_type=3 adds its positions to the hidden state, so n_head={config.n_head} times "
            f"d_head={config.d_head} must equal d_model={config.d_model}."
        )


def __getattr__(name: str) -> Any:
    if name == "TransfoXLConfig":
        from transformer_xl.pretrained_config import TransfoXLConfig

        return TransfoXLConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
