"""A long segment read layer by layer gives what the model gives, in less room."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transformer_xl.modeling import layer_by_layer, reading
from transformer_xl.modeling.layer_by_layer import read_layer_by_layer
from transformer_xl.modeling.reading import Reader, tokens_at_once

from .tiny_models import assert_close, random_ids, tiny_model

KINDS = [
    {"same_length": same_length, "initial_memory": initial_memory, "clamp_len": clamp_len, "pre_lnorm": pre_lnorm}
    for same_length in (False, True)
    for initial_memory in ("zeros", "empty")
    for clamp_len, pre_lnorm in ((-1, False), (4, True))
]


@pytest.fixture(params=[1, 3, 256])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_by_layer, "PIECE", request.param)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_segment_and_the_memory_after_it_are_those_of_the_model(kind: dict[str, Any]) -> None:
    model = tiny_model(**kind).transformer
    carried, mems = [torch.zeros(6, 2, 16) for _ in range(2)], None
    for length in (13, 2, 6, 20):
        ids = random_ids(2, length)
        hidden = read_layer_by_layer(model, ids, carried)
        with torch.no_grad():
            expected = model(ids, mems=mems)
        mems = expected.mems
        assert_close(hidden, expected.last_hidden_state, f"hidden states of {length} tokens")
        for ours, theirs in zip(carried, mems, strict=True):
            assert_close(ours[-len(theirs) :], theirs, f"memory after {length} tokens")


def test_a_projection_that_positions_share_is_used_for_distances_too() -> None:
    model = tiny_model(share_position_projection=True).transformer
    ids = random_ids(1, 15)
    hidden = read_layer_by_layer(model, ids, [torch.zeros(6, 1, 16) for _ in range(2)])
    with torch.no_grad():
        assert_close(hidden, model(ids).last_hidden_state)


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
def test_half_precision_gives_the_same_up_to_its_rounding(autocast: bool) -> None:
    model = tiny_model(same_length=True)
    half = model if autocast else copy.deepcopy(model).bfloat16()
    of_half, of_whole = ([torch.zeros(6, 1, 16, dtype=each.dtype) for _ in range(2)] for each in (half, model))
    for length in (9, 14):
        ids = random_ids(1, length)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            rounded = read_layer_by_layer(half.transformer, ids, of_half)
        exact = read_layer_by_layer(model.transformer, ids, of_whole)
        torch.testing.assert_close(rounded.float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("initial_memory", ["zeros", "empty"])
def test_a_reader_of_long_segments_costs_each_token_what_a_reader_of_short_ones_does(
    monkeypatch: pytest.MonkeyPatch, initial_memory: str
) -> None:
    monkeypatch.setattr(reading, "LONGEST_SEGMENT", 4)
    model = tiny_model(same_length=True, initial_memory=initial_memory)
    ids = random_ids(2, 41)
    losses = {}
    for length in (3, 12, 20):
        reader, pieces = Reader(model, length), []
        assert reader.layer_by_layer == (length >= 12)
        with torch.no_grad():
            for start in range(0, 40, length):
                stop = min(start + length, 40)
                pieces.append(reader.losses(ids[:, start:stop], ids[:, start + 1 : stop + 1]))
        losses[length] = torch.cat(pieces, dim=1)
    assert_close(losses[12], losses[3])
    assert_close(losses[20], losses[3])


def test_a_row_that_was_reset_reads_on_as_from_the_beginning_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_SEGMENT", 4)
    for initial_memory in ("zeros", "empty"):
        model = tiny_model(initial_memory=initial_memory)
        reader, alone = Reader(model, 12), Reader(model, 12)
        reader.hidden_states(random_ids(2, 12))
        reader.reset(torch.tensor([False, True]))
        ids = random_ids(2, 12)
        assert_close(reader.hidden_states(ids)[1:], alone.hidden_states(ids[1:]))


def test_a_fork_of_a_reader_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_SEGMENT", 4)
    reader = Reader(tiny_model(), 12)
    reader.hidden_states(random_ids(1, 12))
    fork, ids = reader.fork(), random_ids(1, 12)
    fork.hidden_states(random_ids(1, 12))
    again = reader.fork()
    assert torch.equal(reader.hidden_states(ids), again.hidden_states(ids))


@pytest.mark.parametrize(
    ("changes", "num_tokens", "expected"),
    [
        ({}, 10_000, 600),
        ({}, 600, 600),
        ({}, 599, 512),
        ({"mem_len": 100}, 10_000, 512),
        ({"same_length": False}, 10_000, 300),
        ({"attn_type": 1}, 10_000, 512),
    ],
)
def test_texts_are_read_in_long_segments_where_no_token_can_tell(
    changes: dict[str, Any], num_tokens: int, expected: int
) -> None:
    model = tiny_model(**{"mem_len": 300, "same_length": True, **changes})
    assert tokens_at_once(model, num_tokens) == expected


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that came into being and are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in known | self.seen:
                storage = tensor.untyped_storage()
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, place: int, size: int) -> None:
        self.seen.discard(place)
        self.now -= size


def test_long_segments_take_less_than_half_of_the_room_that_keys_and_values_take() -> None:
    size = {"n_layer": 40, "d_model": 64, "d_embed": 64, "n_head": 4, "d_head": 16, "cutoffs": [], "div_val": 1}
    model = tiny_model(**size, mem_len=300, same_length=True)
    ids, peaks = random_ids(1, 1201), {}
    for length in (200, 600):
        reader = Reader(model, length)
        with torch.no_grad(), LiveBytes() as live:
            for start in range(0, 1200, length):
                reader.losses(ids[:, start : start + length], ids[:, start + 1 : start + length + 1])
        peaks[length] = live.peak
    assert peaks[600] < peaks[200] / 2
