from __future__ import annotations

import pickle
import re
from functools import cache

import pytest
import sacremoses
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transformer_xl.text.moses import Moses, detokenize_numbers, tokenize_numbers

NEVER_SPLIT = ("<eos>", "<unk>", "<formula>")
PIECES = (
    *"aAzéßЯ東ا5²٣_@#-'\"`.,:;!?()[]{}<>/\\&*%$€+=|~^–—…“”‘’´„«»º",
    *(
        "''",
        "``",
        "..",
        "...",
        "´´",
        "n't",
        "'s",
        "Mr.",
        "No.",
        "U.S.",
        "1,000",
        "3.5",
        "word",
        "DOTMULTI",
        "DOT",
        "--",
    ),
    *("<eos>", "<UNK>", "THISISPROTECTED000", " ", " ", "  ", "\t", "\u00a0", "\u2003", "\x01", "\x1f", "\r", "\n"),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=20)
LANGUAGES = st.sampled_from(["en", "fr", "it", "de", "cs", "ja", "xx"])


@cache
def moses(language: str) -> Moses:
    return Moses(language)


@cache
def sacremoses_tokenizer(language: str) -> sacremoses.MosesTokenizer:
    return sacremoses.MosesTokenizer(language)


@given(TEXTS, LANGUAGES)
@settings(max_examples=400)
@example("a' '1 b", "en")
@example("end.'", "en")
@example(",5 ,5", "en")
def test_splitting_equals_sacremoses(text, language):
    expected = sacremoses_tokenizer(language).tokenize(
        text, aggressive_dash_splits=True, escape=False, protected_patterns=list(NEVER_SPLIT)
    )
    assert moses(language).split(text, NEVER_SPLIT) == expected
    assert moses(language).split(text, NEVER_SPLIT, split_numbers=True) == tokenize_numbers(expected)


@given(TEXTS, LANGUAGES)
@settings(max_examples=400)
def test_normalizing_equals_sacremoses(text, language):
    assert moses(language).normalize(text) == sacremoses.MosesPunctNormalizer(language).normalize(text)


@given(st.lists(st.sampled_from(PIECES).filter(str.strip), max_size=10))
def test_joining_equals_sacremoses(tokens):
    joined = sacremoses.MosesDetokenizer("en").detokenize(tokens)
    assert moses("en").join(tokens) == re.sub(" @([,.])@ ", r"\1", joined).strip()


def test_a_word_means_the_same_whenever_it_comes_again():
    text = "No. 5 said no. Then no. 5 said No. yes. no."
    assert moses("en").split(text) == moses("en").split(text) == Moses("en").split(text)


@pytest.mark.parametrize("token", ["[PAD]", "C++", "<|end|>", "(x"])
def test_a_token_that_is_never_split_is_meant_letter_by_letter(token):
    assert moses("en").split(f"a pad {token} here", [token]) == ["a", "pad", token, "here"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("5,000", ["5", "@,@", "000"]),
        ("1.73", ["1", "@.@", "73"]),
        (".5,", [".5,"]),
        ("1,2.3", ["1", "@,@", "2", "@.@", "3"]),
    ],
)
def test_numbers_are_split_at_their_marks_and_joined_again(text, tokens):
    assert tokenize_numbers([text]) == tokens
    assert detokenize_numbers(" ".join(tokens)) == text


def test_a_pickle_holds_the_language_only():
    copy = pickle.loads(pickle.dumps(Moses("fr")))
    assert copy.language == "fr"
    assert copy.split("l'eau") == ["l'", "eau"]
