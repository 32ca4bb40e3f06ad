"""Who may see whom, stated once more pair by pair."""

from __future__ import annotations

import pytest
import torch

from transformer_xl.ops.visibility import visible_positions

LENGTHS = [(1, 0), (1, 4), (3, 0), (3, 2), (3, 7)]


@pytest.mark.parametrize(("query_length", "memory_length"), LENGTHS)
@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("padded", [False, True])
def test_a_query_sees_the_past_within_its_window_where_there_is_something_and_always_itself(
    query_length: int, memory_length: int, window: int | None, padded: bool
) -> None:
    key_length = memory_length + query_length
    exists = torch.rand(2, key_length) < 0.5 if padded else torch.ones(1, key_length, dtype=torch.bool)
    expected = torch.zeros(len(exists), 1, query_length, key_length, dtype=torch.bool)
    for row in range(len(exists)):
        for query in range(query_length):
            for key in range(key_length):
                distance = memory_length + query - key
                in_reach = distance >= 0 and (window is None or distance < window)
                expected[row, 0, query, key] = (in_reach and exists[row, key]) or distance == 0
    visible_keys = exists if padded else None
    assert torch.equal(visible_positions(query_length, key_length, window=window, visible_keys=visible_keys), expected)


def test_the_mask_is_built_where_it_is_asked_for() -> None:
    assert visible_positions(2, 3, device=torch.device("meta")).device.type == "meta"
