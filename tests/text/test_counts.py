from __future__ import annotations

from transformer_xl.text.counts import TextCounts


def test_a_text_is_counted_in_characters_bytes_and_words():
    assert TextCounts.of("né à Paris\n") == TextCounts(characters=11, bytes=13, words=3)
    assert TextCounts.of("") == TextCounts(0, 0, 0)


def test_bytes_that_are_not_utf8_count_as_they_came():
    assert TextCounts.of("\udcff") == TextCounts(characters=1, bytes=1, words=1)
