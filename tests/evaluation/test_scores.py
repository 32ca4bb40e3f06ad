from __future__ import annotations

import math

import pytest

from transformer_xl.evaluation import DynamicEvaluation, Protocol, Score, TextCounts, loss_in_words, score_table

PROTOCOL = Protocol(target_length=8, memory_length=64, clamp_length=40, begin=7)


def test_a_score_tells_perplexity_bits_and_its_protocol():
    score = Score(nats=10 * math.log(4), tokens=10, protocol=PROTOCOL, seconds=1.0)
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_symbol == pytest.approx(2)
    assert str(PROTOCOL) in str(score)


def test_a_score_of_words_can_be_told_by_characters_bytes_and_words():
    counts = TextCounts.of("né à Paris\n")
    score = Score(nats=11 * math.log(2), tokens=4, protocol=PROTOCOL, seconds=1.0, counts=counts)
    assert score.bits_per_character == pytest.approx(11 / 11)
    assert score.bits_per_byte == pytest.approx(11 / 13)
    assert score.bits_per_word == pytest.approx(11 / 3)
    assert score.perplexity == pytest.approx(2 ** (11 / 4))


def test_without_the_counts_of_the_text_bits_are_told_by_token_only():
    score = Score(nats=1.0, tokens=4, protocol=PROTOCOL, seconds=1.0)
    with pytest.raises(ValueError, match=r"evaluate with counts=TextCounts\.of\(text\)"):
        _ = score.bits_per_byte


def test_a_hopeless_score_has_infinite_perplexity():
    assert Score(nats=1e6, tokens=1, protocol=PROTOCOL, seconds=1.0).perplexity == math.inf


def test_a_loss_is_told_as_people_quote_it():
    assert loss_in_words(math.log(8), "char") == "3.000 bits per character"
    assert loss_in_words(math.log(8), "byte") == "3.000 bits per byte"
    assert loss_in_words(math.log(8), "word") == "perplexity 8.00"


def test_each_line_of_a_table_holds_the_whole_protocol():
    dynamic = Protocol(16, 0, same_length=True, dynamic=DynamicEvaluation(0.1))
    scores = [Score(10.0, 10, protocol, 1.0) for protocol in (PROTOCOL, dynamic)]
    header, first, second = score_table(scores, "char").splitlines()
    assert header.split()[:3] == ["target", "memory", "clamp"]
    assert first.split()[:3] == ["8", "64", "40"]
    assert first.endswith("batch 1, token 7 before the text")
    assert second.split()[:3] == ["16", "0", "none"]
    assert second.endswith("ADAPTING ON THE TEST TEXT (sgd, learning rate 0.1, decay 0)")


def test_a_table_tells_more_where_the_text_is_known():
    counts = TextCounts.of("to be or not")
    scores = [Score(12 * math.log(2), 4, PROTOCOL, 1.0, counts)]
    header, line = score_table(scores, "word").splitlines()
    assert "bits per word  perplexity  per character  per byte  per word" in header
    assert line.split()[3:8] == ["3.0000", "8.000", "1.0000", "1.0000", "3.0000"]
