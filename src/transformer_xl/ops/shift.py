"""The scores of distances, brought from one column per distance to one column per key."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted_distance_scores(
    query: Tensor,
    distance_key: Tensor,
    position_bias: Tensor | None,
    distance_bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Return terms (b) and (d) of the paper's score for every pair (Dai et al. 2019, appendix B).

    Each row of the product of queries and distances is the row below it moved by one. With one more column in front,
    the rows lie so in memory that a view without the first T numbers is the result: nothing is copied.

    Args:
        query: [B, H, T, K].
        distance_key: [H, S, K], the last row for distance 0.
        position_bias: v [H, K] or None.
        distance_bias: [H, S] or None.
        scale: Factor of every score.

    Returns:
        [B, H, T, S]; columns of later positions hold arbitrary finite numbers and have to be masked.
    """
    batch_size, _, query_length, _ = query.shape
    key_length = distance_key.shape[1]
    position_query = query if position_bias is None else query + position_bias[:, None]
    is_shifted = query_length > 1
    if is_shifted:
        distance_key = torch.nn.functional.pad(distance_key, (0, 0, 1, 0))
    # All rows of the batch meet the same distances: one product for each head.
    scores: Tensor = (position_query * scale).transpose(0, 1).flatten(1, 2) @ distance_key.mT
    if distance_bias is not None:
        scores = scores + torch.nn.functional.pad(distance_bias * scale, (int(is_shifted), 0))[:, None]
    scores = scores.unflatten(1, (batch_size, query_length)).transpose(0, 1)
    if not is_shifted:
        return scores
    shifted: Tensor = scores.flatten(2)[..., query_length:].unflatten(2, (query_length, key_length))
    return shifted
