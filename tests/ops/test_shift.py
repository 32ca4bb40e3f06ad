"""The scores of distances stand in the column of the key that lies so far away."""

from __future__ import annotations

import pytest
import torch

from transformer_xl.ops.shift import shifted_distance_scores


@pytest.mark.parametrize(("query_length", "memory_length"), [(1, 0), (1, 6), (4, 0), (4, 2), (4, 9)])
@pytest.mark.parametrize("with_position_bias", [False, True])
@pytest.mark.parametrize("with_distance_bias", [False, True])
def test_every_pair_gets_the_score_of_its_distance(
    query_length: int, memory_length: int, with_position_bias: bool, with_distance_bias: bool
) -> None:
    batch_size, num_heads, head_size, key_length = 2, 3, 5, memory_length + query_length
    query = torch.randn(batch_size, num_heads, query_length, head_size)
    distance_key = torch.randn(num_heads, key_length, head_size)
    position_bias = torch.randn(num_heads, head_size) if with_position_bias else None
    distance_bias = torch.randn(num_heads, key_length) if with_distance_bias else None
    scores = shifted_distance_scores(query, distance_key, position_bias, distance_bias, scale=0.5)

    assert scores.shape == (batch_size, num_heads, query_length, key_length)
    assert scores.isfinite().all()
    for i in range(query_length):
        position_query = query[:, :, i] if position_bias is None else query[:, :, i] + position_bias
        for j in range(memory_length + i + 1):
            row = key_length - 1 - (memory_length + i - j)
            expected = (position_query * distance_key[:, row]).sum(-1)
            if distance_bias is not None:
                expected = expected + distance_bias[:, row]
            torch.testing.assert_close(scores[:, :, i, j], 0.5 * expected)
