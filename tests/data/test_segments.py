from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_xl.data.corpus import encode_corpus
from transformer_xl.data.segments import NOT_COUNTED, Documents, Segments, Sentences, segments_of
from transformer_xl.data.text_settings import TextSettings

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


def pieces(num_tokens: int, starts: set[int]) -> tuple[np.ndarray, np.ndarray]:
    return numbered(num_tokens), np.array(sorted({0, *(start for start in starts if start < num_tokens)}))


BEGIN = 1000
of_pieces = {
    "num_tokens": st.integers(12, 200),
    "starts": st.sets(st.integers(1, 199), max_size=30),
    "segment_length": st.integers(1, 20),
    "shuffle": st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)),
}


def counted(segments) -> list[int]:
    targets = torch.cat([segment.targets.flatten() for segment in segments])
    return sorted(targets[targets != NOT_COUNTED].tolist())


@pytest.mark.parametrize("kind", [Sentences, Documents])
@given(**of_pieces)
def test_every_token_of_every_piece_is_predicted_exactly_once(kind, num_tokens, starts, segment_length, shuffle):
    ids, starts = pieces(num_tokens, starts)
    segments = kind(ids, starts, 4, segment_length, begin=BEGIN, shuffle=shuffle)
    assert counted(segments) == list(range(num_tokens))


@pytest.mark.parametrize("kind", [Sentences, Documents])
@given(**of_pieces)
def test_without_a_token_before_it_the_first_of_each_piece_is_only_read(
    kind, num_tokens, starts, segment_length, shuffle
):
    ids, starts = pieces(num_tokens, starts)
    not_first = sorted(set(range(num_tokens)) - set(starts.tolist()))
    if len(not_first) >= 2:
        assert counted(kind(ids, starts, 2, segment_length, shuffle=shuffle)) == not_first


@pytest.mark.parametrize("kind", [Sentences, Documents])
@given(**of_pieces)
def test_each_piece_begins_with_the_token_before_it_and_goes_on_with_its_own(
    kind, num_tokens, starts, segment_length, shuffle
):
    ids, starts = pieces(num_tokens, starts)
    for segment in kind(ids, starts, 4, segment_length, begin=BEGIN, shuffle=shuffle):
        is_counted = segment.targets != NOT_COUNTED
        inputs, targets = segment.inputs[is_counted].tolist(), segment.targets[is_counted].tolist()
        assert inputs == [BEGIN if target in starts else target - 1 for target in targets]


@given(**of_pieces)
def test_a_document_has_the_memory_of_itself_alone(num_tokens, starts, segment_length, shuffle):
    ids, starts = pieces(num_tokens, starts)
    documents = np.searchsorted(starts, np.arange(num_tokens), side="right")
    remembered = [None] * 4
    for segment in Documents(ids, starts, 4, segment_length, begin=BEGIN, shuffle=shuffle):
        assert segment.inputs.shape == (4, segment_length)
        for row in range(4):
            targets = segment.targets[row][segment.targets[row] != NOT_COUNTED].numpy()
            if segment.resets[row]:
                remembered[row] = None
                assert not len(targets) or targets[0] in starts
            present = set(documents[targets].tolist())
            assert len(present) <= 1
            assert not present or remembered[row] in (None, *present)
            remembered[row] = present.pop() if present else remembered[row]


@given(**of_pieces)
def test_rows_of_documents_are_of_similar_length(num_tokens, starts, segment_length, shuffle):
    ids, starts = pieces(num_tokens, starts)
    lengths = -(-np.diff(starts, append=num_tokens) // segment_length)
    segments = Documents(ids, starts, 4, segment_length, begin=BEGIN, shuffle=shuffle)
    assert len(segments) <= -(-lengths.sum() // 4) + lengths.max()


@pytest.mark.parametrize("kind", [Sentences, Documents])
def test_the_order_of_pieces_depends_on_seed_and_epoch_alone(kind):
    ids, starts = pieces(100, set(range(0, 100, 5)))

    def first_tokens(*shuffle):
        return torch.cat([segment.targets.flatten() for segment in kind(ids, starts, 2, 5, begin=0, shuffle=shuffle)])

    assert torch.equal(first_tokens(1, 0), first_tokens(1, 0))
    assert not torch.equal(first_tokens(1, 0), first_tokens(1, 1))
    assert not torch.equal(first_tokens(1, 0), first_tokens(2, 0))


@pytest.mark.parametrize("kind", [Segments, Sentences, Documents])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_several_processes_see_what_one_sees_in_every_stream(kind, num_processes):
    ids, starts = pieces(200, set(range(0, 200, 7)))
    given = {"varlen": (1, 2), "ext_len": 2} if kind is Segments else {"shuffle": (1, 2)}
    of_kind = (ids, 6, 5) if kind is Segments else (ids, starts, 6, 5)
    alone = kind(*of_kind, begin=BEGIN, **given)
    together = [kind(*of_kind, process, num_processes, begin=BEGIN, **given) for process in range(num_processes)]
    assert {len(each) for each in together} == {len(alone)}
    for index, segment in enumerate(alone):
        shares = [each[index] for each in together]
        assert torch.equal(torch.cat([share.inputs for share in shares]), segment.inputs)
        assert torch.equal(torch.cat([share.targets for share in shares]), segment.targets)
        if segment.resets is not None:
            assert torch.equal(torch.cat([share.resets for share in shares]), segment.resets)


@pytest.mark.parametrize("kind", [Sentences, Documents])
def test_pieces_with_fewer_tokens_than_rows_are_refused(kind):
    with pytest.raises(ValueError, match="3 tokens in 2 pieces, too few for a batch of 4 streams"):
        kind(numbered(3), np.array([0, 1]), 4, 5, begin=BEGIN)


@given(num_tokens=st.integers(60, 600), epoch=st.integers(0, 5))
def test_varying_lengths_leave_no_token_out_and_differ_between_epochs(num_tokens, epoch):
    def lengths(epoch):
        return [segment.inputs.shape[1] for segment in Segments(numbered(num_tokens), 3, 20, varlen=(7, epoch))]

    assert counted(Segments(numbered(num_tokens), 3, 20, varlen=(7, epoch))) == list(range(1, num_tokens))
    assert max(lengths(epoch)) <= 20 + 3 * 5
    assert min(lengths(epoch)[:-1], default=5) >= 5
    assert lengths(epoch) == lengths(epoch)


def test_varying_lengths_are_around_the_segment_length_and_one_in_twenty_around_half():
    lengths = np.diff(Segments(np.zeros(2_000_000, np.uint8), 1, 100, varlen=(1, 0))._borders)[:-1]
    assert np.median(lengths) == pytest.approx(100, abs=1)
    assert np.mean(lengths < 75) == pytest.approx(0.05, abs=0.01)


@given(**sizes, ext_len=st.integers(0, 30))
def test_tokens_that_are_read_again_are_not_predicted_again(num_tokens, batch_size, segment_length, ext_len):
    batch_size = min(batch_size, num_tokens - 1)
    plain = Segments(numbered(num_tokens), batch_size, segment_length)
    extended = Segments(numbered(num_tokens), batch_size, segment_length, ext_len=ext_len)
    assert counted(extended) == list(range(1, num_tokens))
    read = torch.cat([segment.inputs for segment in plain], dim=1)
    for index, (segment, longer) in enumerate(zip(plain, extended, strict=True)):
        again = min(ext_len, index * segment_length)
        start = index * segment_length - again
        assert torch.equal(longer.inputs, read[:, start : start + again + segment.inputs.shape[1]])
        assert torch.equal(longer.targets[:, again:], segment.targets)
        assert torch.all(longer.targets[:, :again] == NOT_COUNTED)


def test_a_corpus_is_read_in_the_stream_that_it_was_encoded_for(tmp_path):
    (tmp_path / "text.txt").write_text("a b c d e\n" * 50)

    def stream(name, **settings):
        settings = TextSettings(str(tmp_path / "text.txt"), unit="word", **settings)
        corpus = encode_corpus(settings, tmp_path / name)
        segments = segments_of(corpus, "train", settings, 4, 6, seed=1, epoch=0)
        assert len(counted(segments)) == len(corpus.train)
        return segments

    assert type(stream("ordered", varlen=True, ext_len=2)) is Segments
    assert type(stream("sentences", stream="sentences")) is Sentences
    assert type(stream("apart", stream="sentences", keep_memory=False)) is Documents
    assert type(stream("documents", stream="documents")) is Documents
