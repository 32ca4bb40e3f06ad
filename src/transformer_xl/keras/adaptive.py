"""Embedding and softmax that give rare tokens fewer numbers, in fixed shapes.

Grave et al. 2017 (adaptive softmax), Baevski & Auli 2019 (adaptive input).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from transformer_xl.configuration import Band, frequency_bands
from transformer_xl.keras.cross_entropy import losses_of_most, selected_losses
from transformer_xl.keras.noise import Noise

IGNORED_LABEL = -100


class EmbeddingTable(keras.layers.Layer):
    """The embeddings of one band, not projected yet.

    Not Keras' own layer, which may turn its weight into integers while an output layer shares it.
    """

    def __init__(self, table: Band, noise: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.noise = noise

    def build(self, input_shape: Any) -> None:
        """Create the weight."""
        self.weight = self.add_weight(shape=(self.table.size, self.table.width), initializer=self.noise, name="weight")

    def call(self, local_ids: Any) -> Any:
        """Return the embeddings of ids counted from the beginning of the band: [...] -> [..., E]."""
        return ops.cast(ops.take(self.weight, local_ids, axis=0), self.compute_dtype)


@keras.saving.register_keras_serializable("transformer_xl")
class KerasAdaptiveEmbedding(keras.layers.Layer):
    """Token embeddings, wide for frequent tokens and narrow for rare ones, projected to one width.

    Args:
        n_token: Number of tokens V.
        d_embed: Width E of the most frequent band.
        d_proj: Width D of the result.
        cutoffs: First token ids of the rarer bands.
        div_val: Divisor of the width from band to band; with 1 all tokens share one matrix.
        init_std: Standard deviation of the weights.
        sample_softmax: Accepted as in transformers 4, where it had no effect either.
        proj_init_std: Standard deviation of the projections; `init_std` by default.
        embedding_initializer: Initialiser of the embeddings; normal numbers by default.

    Example:
        >>> embedding = KerasAdaptiveEmbedding(n_token=100, d_embed=16, d_proj=32, cutoffs=[10, 40], div_val=2)
        >>> embedding(np.array([[3, 99]])).shape
        (1, 2, 32)
    """

    def __init__(
        self,
        n_token: int,
        d_embed: int,
        d_proj: int,
        cutoffs: Sequence[int],
        div_val: int = 1,
        init_std: float = 0.02,
        sample_softmax: bool | int = False,
        *,
        proj_init_std: float | None = None,
        embedding_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.arguments = {
            "n_token": n_token,
            "d_embed": d_embed,
            "d_proj": d_proj,
            "cutoffs": tuple(cutoffs),
            "div_val": div_val,
            "init_std": init_std,
            "sample_softmax": sample_softmax,
            "proj_init_std": proj_init_std,
        }
        self.d_proj = d_proj
        self.bands = frequency_bands(n_token, cutoffs, d_embed, div_val)
        self.projection_noise = Noise(init_std if proj_init_std is None else proj_init_std)
        one_matrix = [Band(0, n_token, d_embed)]
        self.tables = one_matrix if div_val == 1 else self.bands
        self.projected = div_val != 1 or d_proj != d_embed
        self.emb_layers = [
            EmbeddingTable(
                table, embedding_initializer or Noise(init_std), dtype=self.dtype_policy, name=f"emb_layers_{i}"
            )
            for i, table in enumerate(self.tables)
        ]

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        for layer in self.emb_layers:
            layer.build(input_shape)
        self.emb_projs = [
            self.add_weight(shape=(self.d_proj, table.width), initializer=self.projection_noise, name=f"emb_projs_{i}")
            for i, table in enumerate(self.tables if self.projected else [])
        ]

    def call(self, input_ids: Any) -> Any:
        """Return the embeddings scaled by the square root of D: ids [...] -> [..., D]."""
        input_ids = ops.cast(input_ids, "int32")
        parts = []
        for table, layer in zip(self.tables, self.emb_layers, strict=True):
            part = layer(ops.clip(input_ids - table.start, 0, table.size - 1))
            if len(self.tables) > 1:
                inside = ops.logical_and(input_ids >= table.start, input_ids < table.stop)
                part = part * ops.cast(inside, part.dtype)[..., None]
            parts.append(part)
        embedded = ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        if self.projected:
            # One product for all bands: each token has numbers in the columns of its own band only.
            projections = [ops.cast(projection, self.compute_dtype) for projection in self.emb_projs]
            embedded = ops.matmul(embedded, ops.transpose(ops.concatenate(projections, axis=1)))
        return embedded * self.d_proj**0.5

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return [..., D]."""
        return (*input_shape, self.d_proj)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self.arguments}


class OutputLayer(keras.layers.Layer):
    """Bias of the scores of one band, and their weight if it is not the embedding's."""

    def __init__(self, table: Band, tied: bool, noise: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.tied = tied
        self.noise = noise

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        if not self.tied:
            shape = (self.table.size, self.table.width)
            self.weight = self.add_weight(shape=shape, initializer=self.noise, name="weight")
        self.bias = self.add_weight(shape=(self.table.size,), initializer="zeros", name="bias")


class AdaptiveLogSoftmax(keras.layers.Layer):
    """The adaptive softmax: log-probabilities of all tokens, or the loss of given ones.

    The head band's softmax has one more column for each tail cluster; a rare token's probability is its cluster's times
    its own within the cluster. Cluster i has the head column `cutoffs[0] + i - 1`.

    Args:
        bands: The frequency bands.
        d_proj: Width D of the hidden states.
        div_val: Divisor of the embedding width from band to band.
        tie_weights: Whether the output layers use the weights of the embedding.
        tie_projections: For each band, whether its projection is the embedding's.
        noise: Initialiser of weights.
        projection_noise: Initialiser of projections.
    """

    def __init__(
        self,
        bands: Sequence[Band],
        d_proj: int,
        div_val: int,
        tie_weights: bool,
        tie_projections: Sequence[bool],
        noise: Any,
        projection_noise: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bands = list(bands)
        self.d_proj = d_proj
        self.one_matrix = div_val == 1
        self.tie_weights = tie_weights
        self.tie_projections = list(tie_projections)
        self.noise = noise
        self.projection_noise = projection_noise
        self.head_width = bands[0].width
        self.projected = div_val != 1 or d_proj != self.head_width
        tables = [Band(0, bands[-1].stop, self.head_width)] if self.one_matrix else bands
        self.out_layers = [
            OutputLayer(table, tie_weights, noise, dtype=self.dtype_policy, name=f"out_layers_{i}")
            for i, table in enumerate(tables)
        ]

    def build(self, input_shape: Any) -> None:
        """Create the weights that are not the embedding's."""
        num_clusters = len(self.bands) - 1
        if num_clusters:
            self.cluster_weight = self.add_weight(
                shape=(num_clusters, self.head_width), initializer=self.noise, name="cluster_weight"
            )
            self.cluster_bias = self.add_weight(shape=(num_clusters,), initializer="zeros", name="cluster_bias")
        for layer in self.out_layers:
            layer.build(input_shape)
        self.out_projs = {
            str(i): self.add_weight(
                shape=(self.d_proj, band.width), initializer=self.projection_noise, name=f"out_projs_{i}"
            )
            for i, band in enumerate(self.bands)
            if self.projected and not self.tie_projections[i]
        }

    def call(self, hidden: Any, embedding: KerasAdaptiveEmbedding, labels: Any = None) -> Any:
        """Return the log-probabilities of all tokens, [..., D] -> [..., V], or of the labels, negated.

        Args:
            hidden: [..., D], or [N, D] with labels.
            embedding: Where the tied weights are.
            labels: Token ids [N]; -100, and any other number outside the vocabulary, where there is nothing to predict.

        Returns:
            float32; with labels their losses in nats [N], 0 where there is nothing to predict.
        """
        if labels is not None:
            return self.label_losses(hidden, embedding, ops.cast(labels, "int32"))
        shortlist = self.bands[0].size
        head = self.band_logits(0, hidden, embedding)
        # Subtracted last and once: no further array of the vocabulary's width is made.
        normaliser = ops.logsumexp(head, axis=-1, keepdims=True)
        parts = [head[..., :shortlist] - normaliser]
        for i in range(1, len(self.bands)):
            scores = self.band_logits(i, hidden, embedding)
            cluster = head[..., shortlist + i - 1 : shortlist + i] - normaliser
            parts.append(scores + (cluster - ops.logsumexp(scores, axis=-1, keepdims=True)))
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def likeliest(self, hidden: Any, embedding: KerasAdaptiveEmbedding) -> Any:
        """Return the token of the highest score in each row: [N, D] -> int32 [N].

        A tail band is computed only if one of its tokens may be likelier than the best before it, in any row: none is
        likelier than its cluster.
        """
        shortlist = self.bands[0].size
        head = self.band_logits(0, hidden, embedding)
        best = ops.max(head[:, :shortlist], axis=-1)
        tokens = ops.cast(ops.argmax(head[:, :shortlist], axis=-1), "int32")
        for i, band in enumerate(self.bands[1:], start=1):
            cluster = head[:, shortlist + i - 1]
            best, tokens = ops.cond(
                ops.any(cluster > best),
                partial(self._best_of_band, i, band, hidden, embedding, cluster, best, tokens),
                lambda found=(best, tokens): found,
            )
        return tokens

    def _best_of_band(
        self, i: int, band: Band, hidden: Any, embedding: KerasAdaptiveEmbedding, cluster: Any, best: Any, tokens: Any
    ) -> tuple[Any, Any]:
        scores = self.band_logits(i, hidden, embedding)
        highest = cluster + ops.max(scores, axis=-1) - ops.logsumexp(scores, axis=-1)
        found = ops.cast(ops.argmax(scores, axis=-1), "int32") + band.start
        return ops.maximum(best, highest), ops.where(highest > best, found, tokens)

    def label_losses(self, hidden: Any, embedding: KerasAdaptiveEmbedding, labels: Any) -> Any:
        """Return the negative log-likelihood of each label: hidden states [N, D], labels [N] -> [N]."""
        counted = ops.logical_and(labels >= 0, labels < self.bands[-1].stop)
        columns, losses = labels, 0.0
        for i, band in enumerate(self.bands[1:], start=1):
            inside = ops.logical_and(labels >= band.start, labels < band.stop)
            columns = ops.where(inside, self.bands[0].size + i - 1, columns)
            losses = losses + selected_losses(*self.projected_to(i, hidden, embedding), labels - band.start, inside)
        return losses + losses_of_most(*self.projected_to(0, hidden, embedding), columns, counted)

    def band_logits(self, i: int, hidden: Any, embedding: KerasAdaptiveEmbedding) -> Any:
        """Return the scores of the tokens of band `i`, and for the head band also of the clusters, in float32."""
        hidden, weight, bias = self.projected_to(i, hidden, embedding)
        return ops.cast(ops.matmul(hidden, ops.transpose(weight)) + bias, "float32")

    def projected_to(self, i: int, hidden: Any, embedding: KerasAdaptiveEmbedding) -> tuple[Any, Any, Any]:
        """Return the hidden states in the width of band `i`, and the weight and bias of its scores."""
        band, table = self.bands[i], 0 if self.one_matrix else i
        layer = self.out_layers[table]
        weight = embedding.emb_layers[table].weight if self.tie_weights else layer.weight
        weight, bias = ops.cast(weight, self.compute_dtype), ops.cast(layer.bias, self.compute_dtype)
        if self.one_matrix and len(self.bands) > 1:
            weight, bias = weight[band.start : band.stop], bias[band.start : band.stop]
        if i == 0 and len(self.bands) > 1:
            weight = ops.concatenate([weight, ops.cast(self.cluster_weight, self.compute_dtype)])
            bias = ops.concatenate([bias, ops.cast(self.cluster_bias, self.compute_dtype)])
        if self.projected:
            own = self.out_projs.get(str(i))
            projection = embedding.emb_projs[table] if own is None else own
            hidden = ops.matmul(hidden, ops.cast(projection, self.compute_dtype))
        return hidden, weight, bias
