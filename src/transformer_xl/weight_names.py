"""How other programs name the weights of a Transformer-XL: one table for each program."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

__all__ = [
    "LEGACY_HF",
    "LEGACY_KERAS",
    "NVIDIA",
    "ORIGINAL_TENSORFLOW",
    "ORIGINAL_TENSORFLOW_ONE_WIDTH",
    "ORIGINAL_TORCH",
    "Counterpart",
    "Rule",
    "counterpart",
]

How = Literal["same", "transposed", "reversed", "layer", "joined"]
PLACEHOLDERS = {"layer": r"\d+", "band": r"\d+", "rest": r".+"}


class Rule(NamedTuple):
    """One line of a table: our name, their name, and what makes their weight ours.

    Names may hold {layer}, {band} (of the vocabulary) and {rest}, which stand for the same on both sides.

    Attributes:
        ours: Our name.
        theirs: Their name.
        how: "same"; "transposed"; "reversed", the order of the rows; "layer", the row {layer} of a table for all
            layers; or "joined", all bands one below the other.
    """

    ours: str
    theirs: str
    how: How = "same"


class Counterpart(NamedTuple):
    """Where a weight of ours is found in another program's file.

    Attributes:
        names: Their name; several for a weight that they keep in parts.
        how: As in `Rule`.
        layer: The layer of our name; 0 if there is none in it.
    """

    names: list[str]
    how: How
    layer: int


def counterpart(rules: Sequence[Rule], name: str, available: Collection[str]) -> Counterpart | None:
    """Return where our weight `name` is found among the `available` names of another program, or None if nowhere.

    The first rule that fits both our name and an available one decides.

    Example:
        >>> counterpart(NVIDIA, "crit.out_layers.1.bias", ["crit.out_layers_biases.1"])
        Counterpart(names=['crit.out_layers_biases.1'], how='same', layer=0)
    """
    for rule in rules:
        match = _pattern(rule.ours).fullmatch(name)
        if match is None:
            continue
        parts = match.groupdict()
        layer = int(parts.get("layer", 0))
        names = _all_bands(rule.theirs, available) if rule.how == "joined" else [rule.theirs.format(**parts)]
        if names and names[0] in available:
            return Counterpart(names, rule.how, layer)
    return None


def _pattern(ours: str) -> re.Pattern[str]:
    pieces = re.split(r"{(\w+)}", ours)
    return re.compile(
        "".join(f"(?P<{piece}>{PLACEHOLDERS[piece]})" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))
    )


def _all_bands(theirs: str, available: Collection[str]) -> list[str]:
    names: list[str] = []
    while (name := theirs.format(band=len(names))) in available:
        names.append(name)
    return names


# Our names are the published ones.
LEGACY_HF = (Rule("{rest}", "{rest}"),)

# Tail cluster i has the head's column -i in their adaptive softmax, and the column i of ours.
REVERSED_CLUSTERS = (
    Rule("crit.cluster_weight", "crit.cluster_weight", "reversed"),
    Rule("crit.cluster_bias", "crit.cluster_bias", "reversed"),
)

ORIGINAL_TORCH = (
    *REVERSED_CLUSTERS,
    Rule("crit.{rest}", "crit.{rest}"),
    Rule("transformer.{rest}", "{rest}"),
)

NVIDIA = (
    *REVERSED_CLUSTERS,
    Rule("crit.out_layers.{band}.weight", "crit.out_layers_weights.{band}"),
    Rule("crit.out_layers.{band}.bias", "crit.out_layers_biases.{band}"),
    Rule("crit.{rest}", "crit.{rest}"),
    Rule("transformer.{rest}", "{rest}"),
)

# Matrices stand the other way round there, and one table holds the biases of all layers.
ORIGINAL_TENSORFLOW = (
    Rule("transformer.word_emb.emb_layers.{band}.weight", "transformer/adaptive_embed/cutoff_{band}/lookup_table"),
    Rule("transformer.word_emb.emb_layers.0.weight", "transformer/adaptive_embed/lookup_table"),
    Rule("transformer.word_emb.emb_projs.{band}", "transformer/adaptive_embed/cutoff_{band}/proj_W", "transposed"),
    Rule("transformer.word_emb.emb_projs.0", "transformer/adaptive_embed/proj_W", "transposed"),
    Rule("transformer.r_w_bias", "transformer/r_w_bias"),
    Rule("transformer.r_r_bias", "transformer/r_r_bias"),
    Rule("transformer.layers.{layer}.dec_attn.r_w_bias", "transformer/r_w_bias", "layer"),
    Rule("transformer.layers.{layer}.dec_attn.r_r_bias", "transformer/r_r_bias", "layer"),
    Rule(
        "transformer.layers.{layer}.dec_attn.qkv_net.weight",
        "transformer/layer_{layer}/rel_attn/qkv/kernel",
        "transposed",
    ),
    Rule(
        "transformer.layers.{layer}.dec_attn.r_net.weight", "transformer/layer_{layer}/rel_attn/r/kernel", "transposed"
    ),
    Rule(
        "transformer.layers.{layer}.dec_attn.o_net.weight", "transformer/layer_{layer}/rel_attn/o/kernel", "transposed"
    ),
    Rule("transformer.layers.{layer}.dec_attn.layer_norm.weight", "transformer/layer_{layer}/rel_attn/LayerNorm/gamma"),
    Rule("transformer.layers.{layer}.dec_attn.layer_norm.bias", "transformer/layer_{layer}/rel_attn/LayerNorm/beta"),
    Rule(
        "transformer.layers.{layer}.pos_ff.CoreNet.0.weight",
        "transformer/layer_{layer}/ff/layer_1/kernel",
        "transposed",
    ),
    Rule("transformer.layers.{layer}.pos_ff.CoreNet.0.bias", "transformer/layer_{layer}/ff/layer_1/bias"),
    Rule(
        "transformer.layers.{layer}.pos_ff.CoreNet.3.weight",
        "transformer/layer_{layer}/ff/layer_2/kernel",
        "transposed",
    ),
    Rule("transformer.layers.{layer}.pos_ff.CoreNet.3.bias", "transformer/layer_{layer}/ff/layer_2/bias"),
    Rule("transformer.layers.{layer}.pos_ff.layer_norm.weight", "transformer/layer_{layer}/ff/LayerNorm/gamma"),
    Rule("transformer.layers.{layer}.pos_ff.layer_norm.bias", "transformer/layer_{layer}/ff/LayerNorm/beta"),
    Rule("crit.cluster_weight", "transformer/adaptive_softmax/cutoff_0/cluster_W"),
    Rule("crit.cluster_bias", "transformer/adaptive_softmax/cutoff_0/cluster_b"),
    Rule("crit.out_projs.{band}", "transformer/adaptive_softmax/cutoff_{band}/proj", "transposed"),
    Rule("crit.out_layers.0.bias", "transformer/adaptive_softmax/bias"),
    Rule("crit.out_layers.{band}.bias", "transformer/adaptive_softmax/cutoff_{band}/b"),
)

# With a div_val of 1 our output layer is one for all bands, but their bias is in parts.
ORIGINAL_TENSORFLOW_ONE_WIDTH = (
    Rule("crit.out_layers.0.bias", "transformer/adaptive_softmax/cutoff_{band}/b", "joined"),
    *ORIGINAL_TENSORFLOW,
)

# The TensorFlow classes of transformers 4, once "/" is ".", "_._" is "." and the name of the model's class is left out.
LEGACY_KERAS = (
    Rule("transformer.word_emb.emb_layers.{band}.weight", "transformer.word_emb.emb_layers.{band}.embeddings"),
    Rule("transformer.word_emb.emb_layers.{band}.weight", "transformer.word_emb.emb_layers.{band}.weight"),
    Rule("transformer.word_emb.emb_projs.{band}", "transformer.word_emb.emb_projs.{band}", "transposed"),
    Rule("transformer.{rest}.layer_norm.weight", "transformer.{rest}.layer_norm.gamma"),
    Rule("transformer.{rest}.layer_norm.bias", "transformer.{rest}.layer_norm.beta"),
    Rule("transformer.{rest}.weight", "transformer.{rest}.kernel", "transposed"),
    Rule("transformer.{rest}", "transformer.{rest}"),
    Rule("crit.out_projs.{band}", "crit.out_projs.{band}", "transposed"),
    Rule("crit.{rest}", "crit.{rest}"),
    Rule("score.weight", "score.kernel", "transposed"),
)
