"""Embedding and softmax that give rare tokens fewer numbers: one idea of frequency bands, both ends of the model.

Grave et al. 2017 (adaptive softmax), Baevski & Auli 2019 (adaptive input). Parameter names are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from transformer_xl.configuration import Band, frequency_bands
from transformer_xl.modeling.sampled_softmax import log_uniform_candidates, sampled_losses
from transformer_xl.ops import few_rows
from transformer_xl.ops.banded_linear import banded_linear

IGNORED_LABEL = -100
# Hidden states and scores that the losses take at a time where no gradient is kept.
MOST_ROWS = 512
MOST_SCORES = 2**19


def resized_rows(rows: Tensor, stop: int, new_stop: int, new_rows: Callable[[Tensor], Tensor]) -> nn.Parameter:
    """Return a parameter whose rows before `stop` have become `new_stop` rows; the rows after them follow.

    Args:
        rows: [N, ...].
        stop: End of the rows to grow or shrink.
        new_stop: Where they end afterwards.
        new_rows: Fills a tensor of new rows.
    """
    added = new_rows(rows.new_empty(max(0, new_stop - stop), *rows.shape[1:]))
    return nn.Parameter(torch.cat([rows[: min(stop, new_stop)], added, rows[stop:]]), requires_grad=rows.requires_grad)


class AdaptiveEmbedding(nn.Module):
    """Token embeddings, wide for frequent tokens and narrow for rare ones, projected to one width.

    Args:
        n_token: Number of tokens V.
        d_embed: Width E of the most frequent band.
        d_proj: Width D of the result.
        cutoffs: First token ids of the rarer bands.
        div_val: Divisor of the width from band to band; with 1 all tokens share one matrix.
        sample_softmax: Whether the gradient of the one matrix is sparse (div_val 1).

    Example:
        >>> embedding = AdaptiveEmbedding(n_token=100, d_embed=16, d_proj=32, cutoffs=[10, 40], div_val=2)
        >>> embedding(torch.tensor([[3, 99]])).shape
        torch.Size([1, 2, 32])
    """

    def __init__(
        self,
        n_token: int,
        d_embed: int,
        d_proj: int,
        cutoffs: Sequence[int],
        div_val: int = 1,
        sample_softmax: bool | int = False,
    ) -> None:
        super().__init__()
        self.n_token = n_token
        self.d_embed = d_embed
        self.d_proj = d_proj
        self.div_val = div_val
        self.bands = frequency_bands(n_token, cutoffs, d_embed, div_val)
        self.emb_scale = d_proj**0.5
        if div_val == 1:
            self.emb_layers = nn.ModuleList([nn.Embedding(n_token, d_embed, sparse=sample_softmax > 0)])
            projected_widths = [d_embed] if d_proj != d_embed else []
        else:
            self.emb_layers = nn.ModuleList(nn.Embedding(band.size, band.width) for band in self.bands)
            projected_widths = [band.width for band in self.bands]
        self.emb_projs = nn.ParameterList(
            nn.Parameter(torch.randn(d_proj, width) * width**-0.5) for width in projected_widths
        )

    def forward(self, input_ids: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Return the embeddings scaled by the square root of D: ids [...] -> [..., D].

        Every band is looked up for every token, which costs little and keeps shapes static and each band in the graph.

        Args:
            input_ids: Token ids.
            matrix: The one matrix of all tokens as `ops.shared_matrix` gives it for the lookup, [V, E] (div_val 1).

        Raises:
            ValueError: An id lies outside the vocabulary (seen on the CPU only; a GPU stops with an assertion).
        """
        check_token_ids("input_ids", input_ids, self.n_token)
        if self.div_val == 1:
            if matrix is None:
                embedded = self.emb_layers[0](input_ids)
            else:
                embedded = nn.functional.embedding(input_ids, matrix, sparse=True)
            if self.emb_projs:
                embedded = few_rows.linear(embedded, self.emb_projs[0])
            return embedded * self.emb_scale
        embedded = None
        for i, (band, layer) in enumerate(zip(self.bands, self.emb_layers, strict=True)):
            lowest = None if i == 0 else 0
            highest = None if i == len(self.bands) - 1 else band.size - 1
            inside = (input_ids >= band.start) & (input_ids < band.stop)
            local_ids = input_ids - band.start
            if (lowest, highest) != (None, None):
                local_ids = local_ids.clamp(lowest, highest)
            part = few_rows.linear(layer(local_ids) * inside[..., None], self.emb_projs[i])
            embedded = part if embedded is None else embedded + part
        return embedded * self.emb_scale

    def resize_band(self, i: int, size: int, new_rows: Callable[[Tensor], Tensor]) -> None:
        """Give band `i` another number of tokens at its end; the ids of later bands move along."""
        band = self.bands[i]
        layer = cast(nn.Embedding, self.emb_layers[0 if self.div_val == 1 else i])
        offset = 0 if self.div_val == 1 else band.start
        layer.weight = resized_rows(layer.weight, band.stop - offset, band.start + size - offset, new_rows)
        layer.num_embeddings = layer.weight.shape[0]
        self.bands = resized_bands(self.bands, i, size)
        self.n_token = self.bands[-1].stop


class ProjectedAdaptiveLogSoftmax(nn.Module):
    """The adaptive softmax: log-probabilities of all tokens, or the loss of given ones.

    The head band's softmax has one more column for each tail cluster; a rare token's probability is its cluster's times
    its own within the cluster. Cluster i has the head column `cutoffs[0] + i - 1`, as in transformers 4 and in the
    authors' TensorFlow code. With no cutoffs this is the plain softmax.

    Args:
        n_token: Number of tokens V.
        d_embed: Width E of the head band.
        d_proj: Width D of the hidden states.
        cutoffs: First token ids of the tail clusters.
        div_val: Divisor of the width from band to band.
    """

    def __init__(self, n_token: int, d_embed: int, d_proj: int, cutoffs: Sequence[int], div_val: int = 1) -> None:
        super().__init__()
        self.n_token = n_token
        self.div_val = div_val
        self.bands = frequency_bands(n_token, cutoffs, d_embed, div_val)
        self.n_clusters = len(self.bands) - 1
        if self.n_clusters:
            self.cluster_weight = nn.Parameter(torch.zeros(self.n_clusters, d_embed))
            self.cluster_bias = nn.Parameter(torch.zeros(self.n_clusters))
        if div_val == 1:
            self.out_layers = nn.ModuleList([nn.Linear(d_embed, n_token)])
            projected_widths = [d_embed] * len(self.bands) if d_proj != d_embed else []
        else:
            self.out_layers = nn.ModuleList(nn.Linear(band.width, band.size) for band in self.bands)
            projected_widths = [band.width for band in self.bands]
        self.out_projs = nn.ParameterList(
            nn.Parameter(torch.randn(d_proj, width) * d_proj**-0.5) for width in projected_widths
        )

    def forward(self, hidden: Tensor, labels: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Return the negative log-likelihood of each label in nats, in float32 and in the order of the labels.

        Args:
            hidden: [N, D].
            labels: Token ids [N]; -100 where there is nothing to predict.
            matrix: The one matrix of all tokens as `ops.shared_matrix` gives it for the scores, [V, E]; only where
                `has_one_gradient`.

        Returns:
            [N], 0 where the label is -100. A cluster without labels takes part with no rows, so that all parameters
            always get a gradient.

        Raises:
            ValueError: A label lies outside the vocabulary (seen on the CPU only).
        """
        check_token_ids("labels", labels, self.n_token, ignored=IGNORED_LABEL)
        columns = labels.clamp(min=0)
        places = []
        for i, band in enumerate(self.bands[1:]):
            inside = (labels >= band.start) & (labels < band.stop)
            columns = torch.where(inside, self.bands[0].stop + i, columns)
            places.append(inside.nonzero().squeeze(-1))
        inputs = [hidden, *(hidden.index_select(0, rows) for rows in places)]
        local_labels = [columns]
        for band, rows in zip(self.bands[1:], places, strict=True):
            local_labels.append(labels.index_select(0, rows) - band.start)
        head, *tails = self._band_losses(inputs, local_labels, matrix)
        losses = head.masked_fill(labels == IGNORED_LABEL, 0)
        for rows, within in zip(places, tails, strict=True):
            losses = losses.index_add(0, rows, within)
        return losses

    def _band_losses(
        self, inputs: Sequence[Tensor], labels: Sequence[Tensor], matrix: Tensor | None
    ) -> Iterator[Tensor]:
        """Yield the loss of each label within its band; without gradients the scores of a band are never held whole."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            for logits, targets in zip(self._scores(inputs, matrix), labels, strict=True):
                yield nn.functional.cross_entropy(logits.float(), targets, reduction="none")
            return
        for i, (rows, targets) in enumerate(zip(inputs, labels, strict=True)):
            pieces = zip(rows.split(MOST_ROWS), targets.split(MOST_ROWS), strict=True)
            yield torch.cat([self._losses_in_blocks(i, *piece) for piece in pieces])

    def _losses_in_blocks(self, i: int, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each label of band `i`, counted from the band's beginning: [N, D] and [N] give [N]."""
        sums, own = [], torch.zeros(len(labels), device=hidden.device)
        for scores in self._blocks_of_scores(i, hidden):
            width = scores.shape[1]
            inside = (labels >= 0) & (labels < width)
            own += torch.where(inside, scores.gather(1, labels.clamp(0, width - 1)[:, None]).squeeze(1), 0)
            sums.append(scores.logsumexp(dim=1))
            labels = labels - width
        return torch.stack(sums).logsumexp(dim=0) - own

    def _blocks_of_scores(self, i: int, hidden: Tensor) -> Iterator[Tensor]:
        """Yield the scores that `band_logits` returns, some columns at a time, in float32."""
        weight, bias = self._band_parameters()[i]
        if self.out_projs:
            hidden = few_rows.linear(hidden, self.out_projs[i].T)
        width = max(1, MOST_SCORES // max(1, len(hidden)))
        for block in zip(weight.split(width), bias.split(width), strict=True):
            yield few_rows.linear(hidden, *block).float()
        if i == 0 and self.n_clusters:
            yield nn.functional.linear(hidden, self.cluster_weight, self.cluster_bias).float()

    def sampled(self, hidden: Tensor, labels: Tensor, num_samples: int) -> Tensor:
        """Return what `forward` does, estimated from a few candidates; only without cutoffs.

        Args:
            hidden: [N, D].
            labels: Token ids [N]; -100 where there is nothing to predict.
            num_samples: About how many candidates there are.
        """
        check_token_ids("labels", labels, self.n_token, ignored=IGNORED_LABEL)
        if self.out_projs:
            hidden = nn.functional.linear(hidden, self.out_projs[0].T)
        layer = self._output_layer(0)
        candidates = log_uniform_candidates(num_samples, self.n_token).to(hidden.device)
        losses = sampled_losses(hidden, labels.clamp(min=0), layer.weight, layer.bias, candidates, num_samples)
        return losses.masked_fill(labels == IGNORED_LABEL, 0)

    @property
    def has_one_gradient(self) -> bool:
        """Whether the loss gives the matrix of all bands its gradient in one piece."""
        if self.div_val > 1 or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        device = self._output_layer(0).weight.device.type
        return not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))

    def _scores(self, inputs: Sequence[Tensor], matrix: Tensor | None) -> Iterator[Tensor]:
        """Yield the scores of each band for its rows of hidden states, as `band_logits` would give them."""
        if not self.has_one_gradient:
            parameters = self._band_parameters()
            for i, rows in enumerate(inputs):
                yield self._logits(i, rows, *parameters[i])
            return
        if self.out_projs:
            pairs = zip(inputs, self.out_projs, strict=True)
            inputs = [nn.functional.linear(rows, projection.T) for rows, projection in pairs]
        layer = self._output_layer(0)
        weight = layer.weight if matrix is None else matrix
        head, *tails = banded_linear(inputs, weight, layer.bias, [band.size for band in self.bands])
        yield self._with_clusters(head, inputs[0])
        yield from tails

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities of all tokens: [..., D] -> [..., V], in float32."""
        head = torch.log_softmax(self.band_logits(0, hidden).float(), dim=-1)
        shortlist = self.bands[0].stop
        parts = [head[..., :shortlist]]
        for i in range(1, len(self.bands)):
            cluster = head[..., shortlist + i - 1, None]
            parts.append(cluster + torch.log_softmax(self.band_logits(i, hidden).float(), dim=-1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else head

    def log_prob_of_likeliest(self, hidden: Tensor, k: int) -> Tensor:
        """Return what `log_prob` does, but minus infinity for tokens that are not among the k likeliest of any row.

        A tail cluster is left out, as a whole, where it is less likely itself than k tokens of the shortlist. All that
        can be as likely as the k-th has its number, so that whoever takes the k likeliest meets no difference.

        Args:
            hidden: [..., D].
            k: How many of the likeliest tokens of each row have to be right.

        Returns:
            [..., V], in float32.

        Raises:
            ValueError: `k` is not at least 1.
        """
        if k < 1:
            raise ValueError(f"num_candidates is {k}, but must be at least 1, or None for the scores of all tokens")
        head = torch.log_softmax(self.band_logits(0, hidden).float(), dim=-1)
        if not self.n_clusters:
            return head
        shortlist = self.bands[0].stop
        likely = head[..., :shortlist]
        least = likely.topk(k, dim=-1).values[..., -1:] if k <= shortlist else head.new_tensor(float("-inf"))
        parts = [likely]
        for i, band in enumerate(self.bands[1:], start=1):
            cluster = head[..., shortlist + i - 1, None]
            if (cluster >= least).any():
                parts.append(cluster + torch.log_softmax(self.band_logits(i, hidden).float(), dim=-1))
            else:
                parts.append(head.new_full((*head.shape[:-1], band.size), float("-inf")))
        return torch.cat(parts, dim=-1)

    def top_k(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities and ids of the k likeliest tokens, likeliest first: [N, D] -> [N, k] twice.

        They are those that `log_prob` would give, but a tail cluster is computed only for the rows in which it can win:
        no token of it is likelier than the cluster itself.
        """
        shortlist = self.bands[0].stop
        if k > shortlist:
            scores, ids = self.log_prob(hidden).topk(k, dim=-1)
            return scores, ids
        head = torch.log_softmax(self.band_logits(0, hidden).float(), dim=-1)
        best, best_ids = _likeliest(head[:, :shortlist], k)
        for i, band in enumerate(self.bands[1:], start=1):
            cluster = head[:, shortlist + i - 1]
            rows = (cluster > best[:, -1]).nonzero().squeeze(-1)
            if len(rows) == 0:
                continue
            tail = torch.log_softmax(self.band_logits(i, hidden[rows]).float(), dim=-1) + cluster[rows, None]
            found, found_ids = tail.topk(min(k, band.size), dim=-1)
            candidates = torch.cat([best[rows], found], dim=-1)
            candidate_ids = torch.cat([best_ids[rows], found_ids + band.start], dim=-1)
            kept, places = candidates.topk(k, dim=-1)
            best = best.index_copy(0, rows, kept)
            best_ids = best_ids.index_copy(0, rows, candidate_ids.gather(-1, places))
        return best, best_ids

    def band_logits(self, i: int, hidden: Tensor) -> Tensor:
        """Return the scores of the tokens of band `i`, and for the head band also of the clusters.

        [..., D] -> [..., size of the band], plus one column for each cluster if `i` is 0.
        """
        return self._logits(i, hidden, *self._band_parameters()[i])

    def _band_parameters(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight and bias of each band; split in one go, the gradient of a shared matrix is one matrix."""
        if self.div_val > 1:
            return [(layer.weight, layer.bias) for layer in cast(list[nn.Linear], self.out_layers)]
        layer = self._output_layer(0)
        sizes = [band.size for band in self.bands]
        return list(zip(layer.weight.split(sizes), layer.bias.split(sizes), strict=True))

    def _logits(self, i: int, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.out_projs:
            hidden = few_rows.linear(hidden, self.out_projs[i].T)
        logits = few_rows.linear(hidden, weight, bias)
        return self._with_clusters(logits, hidden) if i == 0 else logits

    def _with_clusters(self, head: Tensor, hidden: Tensor) -> Tensor:
        if not self.n_clusters:
            return head
        clusters = nn.functional.linear(hidden, self.cluster_weight, self.cluster_bias)
        return torch.cat([head, clusters], dim=-1)

    def _output_layer(self, i: int) -> nn.Linear:
        return cast(nn.Linear, self.out_layers[0 if self.div_val == 1 else i])

    def resize_band(self, i: int, size: int, new_rows: Callable[[Tensor], Tensor]) -> None:
        """Give band `i` another number of tokens at its end; new ones get a bias of 0."""
        band = self.bands[i]
        layer = self._output_layer(i)
        offset = 0 if self.div_val == 1 else band.start
        edges = (band.stop - offset, band.start + size - offset)
        layer.weight = resized_rows(layer.weight, *edges, new_rows)
        layer.bias = resized_rows(layer.bias, *edges, torch.zero_)
        layer.out_features = layer.weight.shape[0]
        self.bands = resized_bands(self.bands, i, size)
        self.n_token = self.bands[-1].stop


def _likeliest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what `topk` does, which takes several times longer than `max` to find a single one."""
    return scores.max(dim=-1, keepdim=True) if k == 1 else scores.topk(k, dim=-1)


def resized_bands(bands: Sequence[Band], i: int, size: int) -> list[Band]:
    """Return the bands after band `i` got `size` tokens."""
    moved = size - bands[i].size
    grown = bands[i]._replace(stop=bands[i].stop + moved)
    later = [band._replace(start=band.start + moved, stop=band.stop + moved) for band in bands[i + 1 :]]
    return [*bands[:i], grown, *later]


def check_token_ids(name: str, ids: Tensor, vocab_size: int, ignored: int | None = None) -> None:
    """Refuse ids outside the vocabulary, where looking at them does not hold up a GPU or a compiler.

    Raises:
        ValueError: Says which id it is and where it stands.
    """
    if ids.device.type != "cpu" or ids.numel() == 0 or torch.compiler.is_compiling():
        return
    lowest, highest = ids.aminmax()
    if lowest >= 0 and highest < vocab_size:
        return
    wrong = (ids < 0) | (ids >= vocab_size)
    if ignored is not None:
        wrong = wrong & (ids != ignored)
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        allowed = f"0 to {vocab_size - 1}" + ("" if ignored is None else f", or {ignored} to leave a position out")
        raise ValueError(
            f"{name} holds the token id {ids[tuple(place)].item()} at position {place}, but the vocabulary has the ids "
            f"{allowed}: check that tokenizer and model belong together."
        )
