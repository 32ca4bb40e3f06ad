from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_xl.data.segments import NOT_COUNTED, Segments

sizes = {"num_tokens": st.integers(2, 200), "batch_size": st.integers(1, 12), "segment_length": st.integers(1, 20)}


def numbered(num_tokens: int) -> np.ndarray:
    return np.arange(num_tokens, dtype=np.uint16)


@given(**sizes)
def test_every_token_but_the_first_is_predicted_exactly_once(num_tokens, batch_size, segment_length):
    batch_size = min(batch_size, num_tokens - 1)
    segments = Segments(numbered(num_tokens), batch_size, segment_length)
    targets = torch.cat([segment.targets.flatten() for segment in segments])
    assert sorted(targets[targets != NOT_COUNTED].tolist()) == list(range(1, num_tokens))


@given(**sizes)
def test_with_a_token_before_the_text_the_first_one_is_predicted_too(num_tokens, batch_size, segment_length):
    batch_size = min(batch_size, num_tokens)
    segments = list(Segments(numbered(num_tokens), batch_size, segment_length, begin=1_000))
    targets = torch.cat([segment.targets.flatten() for segment in segments])
    assert sorted(targets[targets != NOT_COUNTED].tolist()) == list(range(num_tokens))
    inputs = torch.cat([segment.inputs.flatten() for segment in segments])[targets != NOT_COUNTED]
    assert sorted(inputs.tolist()) == [*range(num_tokens - 1), 1_000]
    assert inputs[targets[targets != NOT_COUNTED] == 0] == 1_000


def test_a_text_of_one_token_is_enough_with_a_token_before_it():
    (segment,) = Segments(numbered(1), 1, 4, begin=7)
    assert (segment.inputs.tolist(), segment.targets.tolist()) == ([[7]], [[0]])


@given(**sizes)
def test_each_target_is_the_token_after_its_input(num_tokens, batch_size, segment_length):
    batch_size = min(batch_size, num_tokens - 1)
    for segment in Segments(numbered(num_tokens), batch_size, segment_length):
        counted = segment.targets != NOT_COUNTED
        assert torch.equal(segment.targets[counted], segment.inputs[counted] + 1)


@given(**sizes)
def test_each_stream_reads_on_where_it_stopped(num_tokens, batch_size, segment_length):
    batch_size = min(batch_size, num_tokens - 1)
    streams = torch.cat([s.inputs for s in Segments(numbered(num_tokens), batch_size, segment_length)], dim=1)
    assert torch.all(streams.diff(dim=1)[:, :-1] == 1)


@given(num_tokens=st.integers(20, 200), segment_length=st.integers(1, 20), num_processes=st.sampled_from([1, 2, 3, 4]))
def test_several_processes_see_what_one_sees(num_tokens, segment_length, num_processes):
    ids = numbered(num_tokens)
    alone = Segments(ids, 12, segment_length)
    together = [Segments(ids, 12, segment_length, process, num_processes) for process in range(num_processes)]
    assert {len(each) for each in together} == {len(alone)}
    for index, segment in enumerate(alone):
        shares = [each[index] for each in together]
        assert torch.equal(torch.cat([share.inputs for share in shares]), segment.inputs)
        assert torch.equal(torch.cat([share.targets for share in shares]), segment.targets)


def test_all_segments_but_the_last_are_full():
    lengths = [segment.inputs.shape[1] for segment in Segments(numbered(101), 4, 7)]
    assert lengths == [7, 7, 7, 4]


def test_a_place_in_the_text_is_one_number():
    segments = Segments(numbered(50), 3, 4)
    assert all(torch.equal(segments[i].inputs, segment.inputs) for i, segment in enumerate(segments))
    with pytest.raises(IndexError):
        segments[len(segments)]


def test_a_text_with_fewer_tokens_than_streams_is_refused():
    with pytest.raises(ValueError, match="8 tokens, too few for a batch of 8 streams"):
        Segments(numbered(8), 8, 4)


def test_streams_that_processes_cannot_share_evenly_are_refused():
    with pytest.raises(ValueError, match="multiple of 3"):
        Segments(numbered(50), 4, 4, 0, 3)
