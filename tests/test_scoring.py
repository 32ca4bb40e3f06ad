from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from transformer_xl.evaluation import Protocol, evaluate
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.scoring import DocumentScore, score
from transformer_xl.text.units import character_tokenizer_of
from transformer_xl.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary.build("abcdefgh é\n", "char")


def make_model(**overrides) -> TransfoXLLMHeadModel:
    settings = {
        "vocab_size": len(VOCABULARY),
        "cutoffs": [5],
        "d_model": 16,
        "d_embed": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
        "div_val": 2,
        "n_layer": 2,
        "mem_len": 8,
        "tgt_len": 8,
        "clamp_len": -1,
        "same_length": True,
        "initial_memory": "empty",
        "init_std": 0.3,
        "proj_init_std": 0.3,
        "dropout": 0.5,
    }
    return TransfoXLLMHeadModel(TransfoXLConfig(**settings | overrides))


def some_ids(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(VOCABULARY), length, dtype=np.uint8)


@torch.no_grad()
def losses_at_once(model: TransfoXLLMHeadModel, ids: np.ndarray) -> np.ndarray:
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    return model.train(False)(tokens[:, :-1], shift_labels=tokens[:, 1:]).losses[0].numpy()


@pytest.mark.parametrize("overrides", [{}, {"initial_memory": "zeros"}, {"mem_len": 0}, {"attn_type": 2}], ids=str)
def test_every_token_is_scored_in_order_by_all_that_came_before_it(overrides):
    model = make_model(same_length=False, **overrides)
    ids = some_ids(30)
    (document,) = score(model, [ids], segment_length=100)
    assert math.isnan(document.losses[0])
    np.testing.assert_allclose(document.losses[1:], losses_at_once(model, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("segment_length", [1, 5, 29, 100])
def test_the_cut_of_the_text_does_not_matter_where_every_token_sees_the_same_window(segment_length):
    model = make_model()
    ids = some_ids(30)
    expected = score(model, [ids])[0].losses
    (document,) = score(model, [ids], segment_length=segment_length)
    np.testing.assert_allclose(document.losses, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("initial_memory", ["zeros", "empty"])
def test_a_text_longer_than_two_memories_costs_what_it_costs_in_short_segments(initial_memory):
    model = make_model(mem_len=300, clamp_len=100, initial_memory=initial_memory)
    documents = [some_ids(1300), some_ids(700, seed=1), some_ids(5, seed=2)]
    short = score(model, documents, segment_length=100)
    for by_memories, expected in zip(score(model, documents), short, strict=True):
        np.testing.assert_allclose(by_memories.losses, expected.losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_each_document_of_a_batch_gets_the_numbers_that_it_gets_alone(batch_size):
    model = make_model()
    documents = [some_ids(length, seed=length) for length in (30, 1, 7, 50, 8, 9)]
    for document, together in zip(documents, score(model, documents, batch_size=batch_size), strict=True):
        np.testing.assert_allclose(together.losses, score(model, [document])[0].losses, rtol=1e-4, atol=1e-5)


def test_evaluation_adds_up_the_same_losses():
    model = make_model()
    ids = some_ids(60)
    protocol = Protocol(target_length=8, memory_length=8, same_length=True)
    assert score(model, [ids], segment_length=8)[0].nats == pytest.approx(evaluate(model, ids, protocol).nats, rel=1e-5)


def test_a_text_stands_after_a_line_end_where_the_vocabulary_has_one():
    model = make_model()
    tokenizer = character_tokenizer_of(VOCABULARY.symbols)
    after_line_end = score(model, ["abc é"], VOCABULARY, read_before=VOCABULARY.line_end_id)[0].losses
    assert not np.isnan(after_line_end).any()
    np.testing.assert_array_equal(score(model, ["abc é"], VOCABULARY)[0].losses, after_line_end)
    np.testing.assert_array_equal(score(model, ["abc é"], tokenizer)[0].losses, after_line_end)
    assert math.isnan(score(model, ["abc é"], VOCABULARY, read_before=None)[0].losses[0])
    assert math.isnan(score(model, [VOCABULARY.encode("abc é")])[0].losses[0])


def test_a_token_read_before_predicts_the_first_one():
    model = make_model()
    ids = some_ids(20)
    (document,) = score(model, [ids], read_before=3)
    expected = losses_at_once(model, np.concatenate([[3], ids]).astype(np.uint8))
    np.testing.assert_allclose(document.losses, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [list, np.asarray, lambda ids: torch.from_numpy(ids.astype(np.int64))])
def test_text_and_ids_of_any_kind_cost_the_same(kind):
    model = make_model()
    text = "abc é def"
    expected = score(model, [text], VOCABULARY)[0].losses
    np.testing.assert_array_equal(score(model, [kind(VOCABULARY.encode(text))], VOCABULARY)[0].losses, expected)


def test_bits_are_told_for_characters_bytes_and_words_of_the_whole_text():
    document = DocumentScore(np.full(9, math.log(2), dtype=np.float32), "abc é def")
    assert document.bits_per_character == pytest.approx(1)
    assert document.bits_per_byte == pytest.approx(9 / 10)
    assert document.bits_per_word == pytest.approx(3)
    assert document.perplexity == pytest.approx(2)


def test_a_token_that_nothing_predicts_costs_nothing():
    losses = np.array([math.nan, math.log(4)], dtype=np.float32)
    assert DocumentScore(losses, "ab").bits_per_character == pytest.approx(1)
    assert DocumentScore(losses).perplexity == pytest.approx(4)


def test_a_long_document_takes_no_more_memory_than_its_losses():
    model = make_model()
    peaks = []
    for length in (2_000, 20_000):
        ids = some_ids(length)
        tracemalloc.start()
        score(model, [ids])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 200_000


def test_the_dropout_of_training_is_off_and_no_gradient_is_kept():
    model = make_model().train()
    ids = some_ids(20)
    first, again = score(model, [ids, ids])
    np.testing.assert_array_equal(first.losses, again.losses)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": "abc"}, "give a list of texts"),
        ({"documents": ["abc"]}, "no encoder was given"),
        ({"documents": [[1, 2], []]}, "document 1 has ids of shape"),
        ({"documents": [[[1, 2]]]}, "document 0 has ids of shape"),
        ({"documents": [[1]], "segment_length": 0}, "segment_length is 0"),
        ({"documents": [[1]], "batch_size": 0}, "batch_size is 0"),
        ({"documents": [[1, 99]]}, "99"),
    ],
)
def test_a_mistake_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(make_model(), **arguments)


def test_the_text_of_ids_is_not_known():
    (document,) = score(make_model(), [[1, 2]])
    with pytest.raises(ValueError, match="score it as text"):
        _ = document.bits_per_word
