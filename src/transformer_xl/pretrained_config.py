"""`TransfoXLConfig`, the published configuration class, on today's `PreTrainedConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers.configuration_utils import PreTrainedConfig

from transformer_xl.configuration import LOCKED_DROPOUT_FIELDS, Band, check_configuration, frequency_bands


class TransfoXLConfig(PreTrainedConfig):
    """Everything that defines a Transformer-XL model; the defaults are those of the published `transfo-xl-wt103`.

    The arguments up to `eos_token_id` are those of transformers 4.37.2, in its order and with its defaults. Unknown
    keyword arguments become attributes, so that old `config.json` files load and keep their legacy keys.

    Args:
        vocab_size: Number of tokens V; ids lie in [0, vocab_size).
        cutoffs: Token ids at which a rarer band of the adaptive embedding and softmax begins; `[]` for a plain softmax.
        d_model: Width D of the hidden states.
        d_embed: Width E of the embeddings of the most frequent band.
        n_head: Number of attention heads H.
        d_head: Size K of a head.
        d_inner: Inner width F of the feed-forward layers.
        div_val: Divisor of the embedding width from one band to the next.
        pre_lnorm: Whether LayerNorm is applied to the input of each block rather than to its output.
        n_layer: Number of layers L.
        mem_len: Number of past positions M that are remembered.
        clamp_len: Distances beyond it share one position encoding; -1 for no limit.
        same_length: Whether every token attends to exactly `mem_len` positions, itself included; if `mem_len` is 0 the
            attention is plainly causal.
        proj_share_all_but_first: Whether the output projections of all bands but the first are tied to the embedding's.
        attn_type: 0 Transformer-XL, 1 Shaw et al., 2 Vaswani et al., 3 Al-Rfou et al.
        sample_softmax: Number of candidates from which the loss is estimated while training, without cutoffs; -1 for
            the exact loss, which evaluation always has.
        adaptive: Whether the softmax is adaptive; it is so in effect if there are cutoffs.
        dropout: Dropout probability of embeddings, positions, projections and feed-forward layers.
        dropatt: Dropout probability of the attention weights.
        untie_r: Whether each layer has its own content and position bias (attn_type 0).
        init: Initialiser of weights: "normal" or "uniform".
        init_range: Half-width of the uniform initialiser.
        proj_init_std: Standard deviation of the projections between embedding and model width.
        init_std: Standard deviation of the normal initialiser.
        layer_norm_epsilon: Added to the variance in LayerNorm.
        eos_token_id: Id of the end-of-line or end-of-text token.
        initial_memory: What a model attends to before the first segment: "zeros" is `mem_len` rows of zeros that are
            attended to (transformers 4 and the authors' TensorFlow code, hence all released weights); "empty" is
            nothing (the authors' PyTorch code; results then do not depend on how a text is cut into segments).
        ext_len: Last tokens of a segment that are read again as the beginning of the next one and thus kept out of the
            memory (the authors' extended context).
        tgt_len: Segment length that the learned position tables of attn_type 1 and 3 are made for; they hold
            `tgt_len + ext_len + mem_len` rows.
        tie_projs: For each band, whether its output projection is tied to the embedding's; by default it follows
            `proj_share_all_but_first`.
        share_position_projection: Whether the matrix of queries, keys and values projects the distances too, in the
            place of one of their own and of both biases (attn_type 0; the Penn Treebank model of the paper's author).
        tie_word_embeddings: Whether the output layers share their weights with the embedding.
        pad_token_id: Id of the padding token; the classifier needs it for batches.
        bos_token_id: Id that generation starts from when there is no prompt.
        use_cache: Whether the models return their memories.
        word_dropout: Probability with which a token of the vocabulary is dropped wherever it stands in the input.
        locked_input_dropout: Probability of a dropout with one mask for all positions of a row, in the place of
            `dropout`, of embeddings and of the encodings of distances; None for no such.
        locked_attention_dropout: The same of queries, keys, values, and the output of attention.
        locked_feed_forward_dropout: The same of the inner and the outer states of the feed-forward layers.
        locked_output_dropout: The same of the last hidden states.

    Raises:
        ValueError: Two fields contradict each other or one is out of range; the sentence names fields and values.

    Example:
        >>> config = TransfoXLConfig(vocab_size=100, cutoffs=[], d_model=32, d_embed=32, n_head=2, d_head=16, mem_len=8)
        >>> config.hidden_size, config.max_position_embeddings
        (32, -1)
    """

    model_type = "transfo-xl"
    keys_to_ignore_at_inference: ClassVar = ["mems", "past_key_values", "losses"]
    attribute_map: ClassVar = {
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    # Without one, the text-generation pipeline of transformers puts a paragraph of its own before every prompt.
    prefix = ""

    def __init__(
        self,
        vocab_size: int = 267735,
        cutoffs: Sequence[int] = (20000, 40000, 200000),
        d_model: int = 1024,
        d_embed: int = 1024,
        n_head: int = 16,
        d_head: int = 64,
        d_inner: int = 4096,
        div_val: int = 4,
        pre_lnorm: bool = False,
        n_layer: int = 18,
        mem_len: int = 1600,
        clamp_len: int = 1000,
        same_length: bool = True,
        proj_share_all_but_first: bool = True,
        attn_type: int = 0,
        sample_softmax: int = -1,
        adaptive: bool = True,
        dropout: float = 0.1,
        dropatt: float = 0.0,
        untie_r: bool = True,
        init: str = "normal",
        init_range: float = 0.01,
        proj_init_std: float = 0.01,
        init_std: float = 0.02,
        layer_norm_epsilon: float = 1e-5,
        eos_token_id: int | None = 0,
        *,
        initial_memory: str = "zeros",
        ext_len: int = 0,
        tgt_len: int = 128,
        tie_projs: Sequence[bool] | None = None,
        share_position_projection: bool = False,
        tie_word_embeddings: bool = True,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        use_cache: bool = True,
        word_dropout: float = 0.0,
        locked_input_dropout: float | None = None,
        locked_attention_dropout: float | None = None,
        locked_feed_forward_dropout: float | None = None,
        locked_output_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.cutoffs = list(cutoffs)
        self.d_model = d_model
        self.d_embed = d_embed
        self.n_head = n_head
        self.d_head = d_head
        self.d_inner = d_inner
        self.div_val = div_val
        self.pre_lnorm = pre_lnorm
        self.n_layer = n_layer
        self.mem_len = mem_len
        self.clamp_len = clamp_len
        self.same_length = same_length
        self.proj_share_all_but_first = proj_share_all_but_first
        self.attn_type = attn_type
        self.sample_softmax = sample_softmax
        self.adaptive = adaptive
        self.dropout = dropout
        self.dropatt = dropatt
        self.untie_r = untie_r
        self.init = init
        self.init_range = init_range
        self.proj_init_std = proj_init_std
        self.init_std = init_std
        self.layer_norm_epsilon = layer_norm_epsilon
        self.eos_token_id = eos_token_id
        self.initial_memory = initial_memory
        self.ext_len = ext_len
        self.tgt_len = tgt_len
        self.tie_projs = (
            [False] + [proj_share_all_but_first] * len(self.cutoffs) if tie_projs is None else list(tie_projs)
        )
        self.share_position_projection = share_position_projection
        self.tie_word_embeddings = tie_word_embeddings
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.use_cache = use_cache
        self.word_dropout = word_dropout
        self.locked_input_dropout = locked_input_dropout
        self.locked_attention_dropout = locked_attention_dropout
        self.locked_feed_forward_dropout = locked_feed_forward_dropout
        self.locked_output_dropout = locked_output_dropout
        super().__init__(**kwargs)
        check_configuration(self)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds: the dropouts of small corpora only where a model has them."""
        unused = {"word_dropout": 0.0, **dict.fromkeys(LOCKED_DROPOUT_FIELDS)}
        fields = super().to_diff_dict()
        return {name: value for name, value in fields.items() if name not in unused or value != unused[name]}

    @property
    def bands(self) -> list[Band]:
        """The frequency bands of the vocabulary, most frequent first."""
        return frequency_bands(self.vocab_size, self.cutoffs, self.d_embed, self.div_val)

    @property
    def max_position_embeddings(self) -> int:
        """-1: Transformer-XL has no limit of sequence length."""
        return -1

    @max_position_embeddings.setter
    def max_position_embeddings(self, value: int) -> None:
        raise NotImplementedError(
            f"max_position_embeddings cannot be set to {value}: Transformer-XL has no limit of sequence length."
        )
