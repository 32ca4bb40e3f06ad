"""Positions are exact in float32, whatever the model's dtype, and count from the newest token backwards."""

from __future__ import annotations

import math

import pytest
import torch

from transformer_xl.modeling.distances import PositionalEmbedding, rows_of_distances, sinusoids


def test_row_d_from_the_end_encodes_distance_d() -> None:
    encodings = sinusoids(20, width=6)
    for distance in range(20):
        angles = [distance / 10000 ** (2 * i / 6) for i in range(3)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(encodings[19 - distance].tolist(), expected, rtol=1e-5, atol=1e-6)


def test_distances_beyond_the_clamp_are_encoded_as_the_clamp() -> None:
    clamped, free = sinusoids(10, 8, clamp_length=4), sinusoids(10, 8)
    assert torch.equal(clamped[-5:], free[-5:])
    assert torch.equal(clamped[:5], free[-5].expand(5, -1))


@pytest.mark.parametrize("no_limit", [-1, 0])
def test_a_clamp_that_is_not_positive_is_no_limit(no_limit: int) -> None:
    assert torch.equal(sinusoids(10, 8, clamp_length=no_limit), sinusoids(10, 8))


def test_the_longest_distances_are_as_exact_as_float32_allows() -> None:
    distances = torch.arange(1727, -1, -1, dtype=torch.float64)
    angles = distances[:, None] / 10000 ** (torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    expected = torch.cat([angles.sin(), angles.cos()], dim=-1)
    torch.testing.assert_close(sinusoids(1728, 64).double(), expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_positions_are_the_float32_positions_rounded_once(dtype: torch.dtype) -> None:
    like = torch.zeros(1, dtype=dtype)
    exact = sinusoids(1728, 64)
    assert exact.dtype == torch.float32
    assert torch.equal(PositionalEmbedding(64).to(dtype)(1728, -1, like), exact.to(dtype))


def test_positions_follow_the_device_and_dtype_of_the_hidden_states() -> None:
    like = torch.zeros(1, dtype=torch.float64, device="meta")
    encodings = PositionalEmbedding(8)(5, -1, like)
    assert (encodings.dtype, encodings.device.type, encodings.shape) == (torch.float64, "meta", (5, 8))


@pytest.mark.parametrize("state", [{}, {"inv_freq": torch.full((4,), 7.0)}])
def test_a_state_dict_may_hold_the_frequencies_or_not_and_never_changes_them(state: dict[str, torch.Tensor]) -> None:
    positions = PositionalEmbedding(8)
    before = positions.inv_freq.clone()
    positions.load_state_dict(state)
    assert torch.equal(positions.inv_freq, before)


def test_a_learned_table_is_read_from_its_end() -> None:
    table = torch.arange(5.0)[:, None]
    assert rows_of_distances(table, 3).flatten().tolist() == [2, 3, 4]


def test_distances_beyond_a_learned_table_get_its_first_row() -> None:
    table = torch.arange(3.0)[:, None]
    assert rows_of_distances(table, 5).flatten().tolist() == [0, 0, 0, 1, 2]


def test_a_clamped_table_has_only_its_last_rows() -> None:
    table = torch.arange(6.0)[:, None]
    assert rows_of_distances(table, 5, clamp_length=2).flatten().tolist() == [4, 4, 4, 4, 5]
    assert rows_of_distances(table, 1, clamp_length=2).flatten().tolist() == [5]
