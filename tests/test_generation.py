from __future__ import annotations

import numpy as np
import pytest
import torch

from transformer_xl.generation import continue_text, generate_text, open_session
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.sessions import Session
from transformer_xl.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary.build("abcdefgh \n", "char")


@pytest.fixture
def model() -> TransfoXLLMHeadModel:
    torch.manual_seed(0)
    config = TransfoXLConfig(
        len(VOCABULARY), [], 16, 16, 2, 8, 32, 1, n_layer=2, mem_len=100, clamp_len=-1, same_length=False,
        initial_memory="empty", init_std=0.5, tgt_len=8, eos_token_id=None,
    )  # fmt: skip
    return TransfoXLLMHeadModel(config)


def written(model, prompt="abc", length=20, vocabulary=VOCABULARY, **options) -> str:
    return "".join(generate_text(model, vocabulary, prompt, length, **options))


def test_greedy_text_is_what_generate_of_transformers_writes(model):
    prompt = "abc def gha bcd efg"
    ids = torch.from_numpy(VOCABULARY.encode(prompt).astype(np.int64))[None]
    expected = model.train(False).generate(
        ids, max_new_tokens=20, do_sample=False, suppress_tokens=[VOCABULARY.unknown_id]
    )
    assert written(model, prompt, temperature=0) == VOCABULARY.decode(expected[0, ids.shape[1] :].tolist())


def test_a_long_prompt_is_read_in_segments_with_the_same_result(model):
    prompt = "abcdefgh" * 6
    in_segments = written(model, prompt, temperature=0)
    model.config.tgt_len = 1000
    assert written(model, prompt, temperature=0) == in_segments


def test_a_seed_repeats_the_text_and_another_one_does_not(model):
    assert written(model, seed=1) == written(model, seed=1)
    assert written(model, seed=1) != written(model, seed=2)


def test_drawing_leaves_the_random_numbers_of_the_caller_alone(model):
    state = torch.get_rng_state()
    written(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_likeliest_symbol_is_the_greedy_text(model):
    greedy = written(model, temperature=0)
    assert written(model, top_k=1) == greedy
    assert written(model, top_p=1e-6) == greedy


def test_the_text_has_the_length_that_was_asked_for_and_no_unknown_symbol(model):
    text = written(model, length=300, temperature=5.0, seed=0)
    assert len(text) == 300


def test_gradient_mode_is_the_callers_between_two_pieces(model):
    pieces = generate_text(model, VOCABULARY, "abc", 3)
    next(pieces)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_words_go_on_after_a_space_unless_a_line_began(model):
    vocabulary = Vocabulary.build("a b c d e f g h", "word")
    model.resize_token_embeddings(len(vocabulary))
    assert written(model, "a b", 1, vocabulary, top_k=1).startswith((" ", "\n"))
    assert not written(model, "a b\n", 1, vocabulary, top_k=1).startswith(" ")


def test_a_session_goes_on_where_it_stopped(model, tmp_path):
    at_once = written(model, length=30, seed=1)
    session = open_session(model, tmp_path / "session.safetensors", seed=1)
    first = "".join(continue_text(session, VOCABULARY, "abc", 10))
    session.save(tmp_path / "session.safetensors")
    later = continue_text(open_session(model, tmp_path / "session.safetensors"), VOCABULARY, "", 20)
    assert first + "".join(later) == at_once


def test_a_session_reads_more_before_it_goes_on(model):
    session = Session(model)
    list(continue_text(session, VOCABULARY, "abc", 2, temperature=0))
    text = "".join(continue_text(session, VOCABULARY, " gh", 3, temperature=0))
    assert text == written(model, "abc" + written(model, "abc", 2, temperature=0) + " gh", 3, temperature=0)
    assert session.num_read == 3 + 2 + 3 + 3


def test_a_word_after_a_session_begins_with_its_space(model, tmp_path):
    vocabulary = Vocabulary.build("a b c d e f g h", "word")
    model.resize_token_embeddings(len(vocabulary))
    session = Session(model, seed=1)
    text = "".join("".join(continue_text(session, vocabulary, "" if i else "a", 1)) for i in range(40))
    assert "a" + text == vocabulary.decode(vocabulary.encode("a" + text, strict=True))


def test_a_session_of_many_texts_is_refused(model, tmp_path):
    Session(model, 2).feed(torch.zeros(2, 3, dtype=torch.long)).save(tmp_path / "session.safetensors")
    with pytest.raises(ValueError, match="holds 2 texts"):
        open_session(model, tmp_path / "session.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "the prompt holds no symbol"),
        ({"prompt": "abz"}, "character 'z' at position 2"),
        ({"length": 0}, "the length is 0"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"top_p": float("nan")}, "top_p is nan"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate_text(model, VOCABULARY, **{"prompt": "abc", "num_symbols": options.pop("length", 5), **options})
