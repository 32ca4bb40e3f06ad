from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from transformer_xl.data.segments import Documents, Segments, Sentences
from transformer_xl.evaluation import Protocol, TextCounts, evaluate

PROTOCOL = Protocol(target_length=8, memory_length=64)


def nats_at_once(model, ids: np.ndarray) -> float:
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        return model.train(False)(tokens[:, :-1], shift_labels=tokens[:, 1:]).losses.sum().item()


@pytest.mark.parametrize("target_length", [1, 7, 8, 59, 100])
def test_the_score_does_not_depend_on_how_the_text_is_cut(model, ids, target_length):
    score = evaluate(model, ids, Protocol(target_length, memory_length=60))
    assert score.tokens == 59
    assert score.nats == pytest.approx(nats_at_once(model, ids), rel=1e-5)


@pytest.mark.parametrize("target_length", [1, 7, 100])
def test_with_a_token_before_the_text_every_token_is_scored_the_first_and_the_last_included(model, ids, target_length):
    score = evaluate(model, ids, Protocol(target_length, memory_length=60, begin=3))
    assert score.tokens == 60
    after_begin = np.concatenate([[3], ids]).astype(np.uint8)
    assert score.nats == pytest.approx(nats_at_once(model, after_begin), rel=1e-5)


def test_a_text_of_one_token_can_be_scored_after_another(model):
    score = evaluate(model, np.array([5], dtype=np.uint8), dataclasses.replace(PROTOCOL, begin=3))
    assert (score.tokens, score.nats) == (1, pytest.approx(nats_at_once(model, np.array([3, 5])), rel=1e-5))


def test_without_memory_each_pass_stands_alone(model, ids):
    score = evaluate(model, ids, Protocol(target_length=20, memory_length=0))
    assert score.nats == pytest.approx(sum(nats_at_once(model, ids[i : i + 21]) for i in (0, 20, 40)), rel=1e-5)


@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_streams_side_by_side_score_every_token_once(model, ids, batch_size):
    assert evaluate(model, ids, dataclasses.replace(PROTOCOL, batch_size=batch_size)).tokens == 59
    assert evaluate(model, ids, dataclasses.replace(PROTOCOL, batch_size=batch_size, begin=0)).tokens == 60


def test_each_of_several_streams_begins_without_a_past(model, ids):
    score = evaluate(model, ids, Protocol(target_length=30, memory_length=60, batch_size=2, begin=3))
    halves = [np.concatenate([[3], ids[:30]]), ids[29:]]
    assert score.nats == pytest.approx(sum(nats_at_once(model, half) for half in halves), rel=1e-5)


@pytest.mark.parametrize("side_by_side", [2, 50])
@pytest.mark.parametrize(
    "overrides",
    [
        {}, {"initial_memory": "zeros"}, {"same_length": True}, {"same_length": True, "initial_memory": "zeros"},
        {"attn_type": 1}, {"cutoffs": [5]},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("memory_length", [7, 12])
def test_one_stream_costs_the_same_however_many_stretches_are_read_at_once(
    make_model, side_by_side, overrides, memory_length
):
    model = make_model(**overrides)
    text = np.random.default_rng(1).integers(0, 11, 203, dtype=np.uint8)
    protocol = Protocol(4, memory_length, 9, overrides.get("same_length", False), begin=2)
    alone = evaluate(model, text, protocol)
    together = evaluate(model, text, protocol, side_by_side=side_by_side)
    assert (together.tokens, together.protocol) == (203, protocol)
    assert together.nats == pytest.approx(alone.nats, rel=2e-7)


@pytest.mark.parametrize("attn_type", [0, 1])
@pytest.mark.parametrize("initial_memory", ["empty", "zeros"])
def test_where_every_token_sees_as_many_others_the_length_of_a_pass_is_no_part_of_the_score(
    make_model, attn_type, initial_memory
):
    model = make_model(attn_type=attn_type, initial_memory=initial_memory)
    ids = np.random.default_rng(1).integers(0, 11, 1500, dtype=np.uint8)
    protocol = Protocol(50, 300, clamp_length=100, same_length=True, begin=3)
    as_it_says = evaluate(model, Segments(ids, 1, 50, begin=3), protocol)
    assert evaluate(model, ids, protocol).nats == pytest.approx(as_it_says.nats, rel=1e-5)


@pytest.mark.parametrize("attn_type", [2, 3])
def test_a_pass_is_as_long_as_the_protocol_says_where_positions_count_from_its_end(make_model, ids, attn_type):
    model = make_model(attn_type=attn_type)
    protocol = Protocol(7, 20, same_length=True, begin=3)
    as_it_says = evaluate(model, Segments(ids, 1, 7, begin=3), protocol)
    assert evaluate(model, ids, protocol).nats == as_it_says.nats


@pytest.mark.parametrize("attn_type", [2, 3])
def test_positions_in_the_hidden_states_do_not_let_stretches_be_read_at_once(make_model, ids, attn_type):
    with pytest.raises(ValueError, match=f"attn_type {attn_type}"):
        evaluate(make_model(attn_type=attn_type), ids, PROTOCOL, side_by_side=2)


def test_segments_that_were_cut_elsewhere_cost_what_the_ids_cost(model, ids):
    protocol = Protocol(8, 16, batch_size=3, begin=4)
    score = evaluate(model, Segments(ids, 3, 8, begin=4), Protocol(8, 16, batch_size=3))
    assert (score.nats, score.protocol) == (evaluate(model, ids, protocol).nats, protocol)


def test_segments_say_what_is_read_again(model, ids):
    protocol = Protocol(5, 8, extended_length=6, begin=4)
    score = evaluate(model, Segments(ids, 1, 5, begin=4, ext_len=6), Protocol(5, 8))
    assert (score.nats, score.protocol) == (evaluate(model, ids, protocol).nats, protocol)


def test_segments_of_another_size_than_the_protocol_says_are_refused(model, ids):
    with pytest.raises(ValueError, match="has 2 rows of 8 tokens, but the protocol says batch 1 and target 8"):
        evaluate(model, Segments(ids, 2, 8), PROTOCOL)
    with pytest.raises(ValueError, match="has 1 rows of 9 tokens, but the protocol says batch 1 and target 8"):
        evaluate(model, Segments(ids, 1, 9), PROTOCOL)


@pytest.mark.parametrize("initial_memory", ["empty", "zeros"])
def test_pieces_of_a_text_are_scored_alone_or_in_a_row(make_model, ids, initial_memory):
    model = make_model(initial_memory=initial_memory)
    starts, protocol = np.array([0, 7, 30, 41]), Protocol(4, 40, batch_size=2)
    alone = evaluate(model, Documents(ids, starts, 2, 4, begin=3), protocol)
    pieces = [evaluate(model, piece, Protocol(4, 40, begin=3)).nats for piece in np.split(ids, starts[1:])]
    assert alone.tokens == 60
    assert alone.nats == pytest.approx(sum(pieces), rel=1e-6)
    assert (alone.protocol.pieces, alone.protocol.begin) == ("alone", 3)
    kept = evaluate(model, Sentences(ids, starts, 2, 4, begin=3), protocol)
    assert (kept.tokens, kept.protocol.pieces) == (60, "kept")
    assert kept.nats != pytest.approx(alone.nats, rel=1e-5)


@pytest.mark.parametrize("memory_length", [0, 20])
def test_tokens_that_are_read_again_are_not_remembered_too(model, ids, memory_length):
    """One layer that reads again what it would have remembered sees the same."""
    model.transformer.layers = model.transformer.layers[:1]
    model.transformer.n_layer = 1
    score = evaluate(model, ids, Protocol(5, memory_length, extended_length=60, begin=3))
    assert score.tokens == 60
    assert score.nats == pytest.approx(nats_at_once(model, np.concatenate([[3], ids])), rel=1e-5)
    beyond = evaluate(model, ids, Protocol(5, 20, extended_length=40, begin=3))
    assert beyond.nats == pytest.approx(evaluate(model, ids, Protocol(60, 0, begin=3)).nats, rel=1e-5)


@pytest.mark.parametrize("cutoffs", [[], [4]])
def test_a_temperature_flattens_what_the_model_believes(make_model, ids, cutoffs):
    model = make_model(cutoffs=cutoffs).eval()
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        believed = (model(tokens[:, :-1]).prediction_scores[0] / 1.5).log_softmax(-1)
    expected = -believed.gather(1, tokens[0, 1:, None]).sum().item()
    assert evaluate(model, ids, Protocol(9, 60, temperature=1.5)).nats == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(model, ids, training):
    model.train(training)
    evaluate(model, ids, Protocol(5, 3, clamp_length=4, same_length=True))
    transformer = model.transformer
    assert (transformer.mem_len, transformer.clamp_len, transformer.same_length) == (8, -1, False)
    assert model.training is training


def test_the_model_comes_back_as_it_was_after_a_mistake(model):
    with pytest.raises(ValueError, match="holds the token id"):
        evaluate(model, np.full(20, 99, dtype=np.uint8), PROTOCOL)
    assert model.transformer.mem_len == 8


def test_clamp_and_same_length_are_part_of_the_protocol(model, ids):
    scores = {
        evaluate(model, ids, protocol).nats
        for protocol in (PROTOCOL, Protocol(8, 64, clamp_length=2), Protocol(8, 4), Protocol(8, 4, same_length=True))
    }
    assert len(scores) == 4


def test_a_text_on_disk_is_scored_without_loading_it(model, ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    on_disk = np.load(tmp_path / "ids.npy", mmap_mode="r")
    assert evaluate(model, on_disk, PROTOCOL).nats == evaluate(model, ids, PROTOCOL).nats


def test_the_counts_of_the_text_come_with_the_score(model, ids):
    counts = TextCounts(characters=120, bytes=150, words=20)
    assert evaluate(model, ids, PROTOCOL, counts=counts).counts == counts


@pytest.mark.parametrize(
    ("text", "protocol", "arguments", "message"),
    [
        (np.zeros(1, dtype=np.uint8), PROTOCOL, {}, "too few"),
        (np.zeros((2, 9), dtype=np.uint8), PROTOCOL, {}, r"uint8 of shape \(2, 9\), but must be one row"),
        (np.zeros(9), PROTOCOL, {}, "float64 of shape"),
        (np.zeros(9, dtype=np.uint8), dataclasses.replace(PROTOCOL, begin=11), {}, "holds the token id"),
        (np.zeros(9, dtype=np.uint8), PROTOCOL, {"side_by_side": 0}, "side_by_side is 0"),
        (np.zeros(9, dtype=np.uint8), dataclasses.replace(PROTOCOL, batch_size=2), {"side_by_side": 2}, "one stream"),
        (np.zeros(9, dtype=np.uint8), Protocol(2, 4, extended_length=1), {"side_by_side": 2}, "one stream"),
        (Segments(np.zeros(9, dtype=np.uint8), 1, 8), PROTOCOL, {"side_by_side": 2}, "give the ids of the text"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(model, text, protocol, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, text, protocol, **arguments)
