"""The softmax over a few candidates in the place of a large vocabulary, for training (Jean et al. 2015)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def log_uniform_candidates(num_samples: int, vocab_size: int) -> Tensor:
    """Return the different ones of `2 * num_samples` token ids, drawn with P(id) ~ log((id + 2) / (id + 1)).

    So frequent tokens, which have low ids, are candidates more often. They are drawn on the CPU and are the same
    whatever the model runs on; rounding makes no id impossible, because the lots are float64.
    """
    lots = torch.rand(2 * num_samples, dtype=torch.float64)
    ids = (lots * math.log(vocab_size + 1)).exp().long() - 1
    return ids.clamp(max=vocab_size - 1).unique()


def log_probability_of_being_drawn(ids: Tensor, num_samples: int, vocab_size: int) -> Tensor:
    """Return the logarithm of the probability that an id is among `log_uniform_candidates`, in float32.

    It is 1 - (1 - p)**(2 * num_samples). The authors' sampler means this too, but has 1 - (1 + p)**(-2 * num_samples).
    """
    probability = (1 / (ids.float() + 1)).log1p() / math.log(vocab_size + 1)
    return (-((-probability).log1p() * (2 * num_samples)).expm1()).log()


def sampled_losses(
    hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, candidates: Tensor, num_samples: int
) -> Tensor:
    """Return the negative log-likelihood of each label among the candidates, in nats and in float32.

    Every score is corrected by how likely its token was to be a candidate, so that the scores that training finds are
    those of the whole vocabulary; a candidate that is the label itself does not count a second time. With all tokens
    as certain candidates this is the exact loss. Source: `sample_logits` of the authors' code.

    Args:
        hidden: [N, E].
        labels: Token ids [N].
        weight: [V, E].
        bias: [V].
        candidates: Different token ids [C].
        num_samples: As given to `log_uniform_candidates`.
    """
    vocab_size = weight.shape[0]
    rows = nn.functional.embedding(torch.cat([labels, candidates]), weight)
    biases = bias[torch.cat([labels, candidates])]
    label_rows, candidate_rows = rows.split([len(labels), len(candidates)])
    label_biases, candidate_biases = biases.split([len(labels), len(candidates)])
    of_labels = (hidden * label_rows).sum(-1).float() + label_biases
    of_candidates = nn.functional.linear(hidden, candidate_rows, candidate_biases).float()
    of_labels = of_labels - log_probability_of_being_drawn(labels, num_samples, vocab_size)
    of_candidates = of_candidates - log_probability_of_being_drawn(candidates, num_samples, vocab_size)
    of_candidates = of_candidates.masked_fill(labels[:, None] == candidates, -math.inf)
    return torch.cat([of_labels[:, None], of_candidates], dim=1).logsumexp(dim=1) - of_labels
