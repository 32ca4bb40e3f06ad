"""Writing on kept keys and values gives what reading everything anew would give, and compiles once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from transformer_xl.keras import generation
from transformer_xl.keras.heads import KerasTransfoXLLMHeadModel

from .chain import random_ids, small_config


def language_model(**fields: Any) -> KerasTransfoXLLMHeadModel:
    keras.utils.set_random_seed(2)
    return KerasTransfoXLLMHeadModel(small_config(tie_word_embeddings=False, init_std=0.6, **fields))


def written_anew(model: KerasTransfoXLLMHeadModel, prompt: np.ndarray, num_tokens: int) -> np.ndarray:
    """The greedy continuation by one call of the model for each token."""
    ids, mems, unread = prompt, None, prompt
    for _ in range(num_tokens):
        output = model(unread, mems=mems, logits_to_keep=1)
        unread, mems = ops.convert_to_numpy(ops.argmax(output.logits, axis=-1)).astype("int32"), output.mems
        ids = np.concatenate([ids, unread], axis=1)
    return ids


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"same_length": True, "pre_lnorm": True},
        {"initial_memory": "empty", "untie_r": False},
        {"mem_len": 0, "cutoffs": [], "div_val": 1},
    ],
    ids=str,
)
def test_the_continuation_is_that_of_one_call_for_each_token(fields: dict[str, Any]) -> None:
    model, prompt = language_model(**fields), random_ids(2, 3)
    assert np.array_equal(model.generate(prompt, max_new_tokens=15), written_anew(model, prompt, 15))


def test_a_padded_prompt_is_continued_as_the_prompt_alone() -> None:
    model, prompts = language_model(), random_ids(2, 6)
    mask = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    written = model.generate(prompts, max_new_tokens=6, attention_mask=mask)
    assert np.array_equal(written[:1, 3:], model.generate(prompts[:1, 3:], max_new_tokens=6))
    assert np.array_equal(written[1:], model.generate(prompts[1:], max_new_tokens=6))


def test_writing_goes_on_from_a_memory() -> None:
    model, text = language_model(initial_memory="empty"), random_ids(2, 6)
    mems = model(text[:, :4]).mems
    assert np.array_equal(
        model.generate(text[:, 4:], max_new_tokens=5, mems=mems)[:, 2:], model.generate(text, max_new_tokens=5)[:, 6:]
    )


def test_the_step_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    read_one = generation.Writer._read_one

    def counted(self: Any, *arguments: Any) -> Any:
        traced.append(1)
        return read_one(self, *arguments)

    monkeypatch.setattr(generation.Writer, "_read_one", counted)
    model = language_model()
    model.generate(random_ids(2, 3), max_new_tokens=12, temperature=0.7, seed=1)
    traces = len(traced)
    model.generate(random_ids(2, 5), max_new_tokens=40, temperature=1.3, seed=2)
    model.generate(random_ids(2, 20), max_new_tokens=10, temperature=0.1, mems=model(random_ids(2, 4)).mems)
    if keras.config.backend() != "torch":
        assert len(traced) == traces <= 3, "as often as the backend looks at a loop, once"


def test_a_seed_makes_drawing_repeatable_and_filters_narrow_it() -> None:
    model, prompt = language_model(), random_ids(2, 3)
    drawn = model.generate(prompt, max_new_tokens=10, temperature=1.0, seed=3)
    assert np.array_equal(drawn, model.generate(prompt, max_new_tokens=10, temperature=1.0, seed=3))
    assert not np.array_equal(drawn, model.generate(prompt, max_new_tokens=10, temperature=1.0, seed=4))
    greedy = model.generate(prompt, max_new_tokens=10)
    assert np.array_equal(greedy, model.generate(prompt, max_new_tokens=10, temperature=1.0, top_k=1))
    assert np.array_equal(greedy, model.generate(prompt, max_new_tokens=10, temperature=1.0, top_p=1e-6))


def test_choices_follow_the_probabilities() -> None:
    scores = ops.log(ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4]]))
    scores = ops.broadcast_to(scores, (1000, 4))
    lots = ops.convert_to_tensor((np.arange(1000, dtype="float32") + 0.5) / 1000)

    def shares(**sampling: Any) -> list[float]:
        draw = generation.Sampling(True, sampling.get("top_k", 0), "top_p" in sampling).draw
        chosen = ops.convert_to_numpy(draw(scores, 1.0, sampling.get("top_p", 1.0), lots))
        return [float((chosen == token).mean()) for token in range(4)]

    np.testing.assert_allclose(shares(), [0.1, 0.2, 0.3, 0.4], atol=2e-3)
    np.testing.assert_allclose(shares(top_k=2), [0, 0, 3 / 7, 4 / 7], atol=2e-3)
    np.testing.assert_allclose(shares(top_p=0.6), [0, 0, 3 / 7, 4 / 7], atol=2e-3)
    np.testing.assert_allclose(shares(top_k=3, top_p=0.3), [0, 0, 0, 1], atol=2e-3)


def test_a_row_ends_after_its_end_token_and_is_padded() -> None:
    model, prompt = language_model(pad_token_id=0), random_ids(2, 3)
    greedy = model.generate(prompt, max_new_tokens=12)[:, 3:]
    end = int(greedy[0, 4])
    written = model.generate(prompt, max_new_tokens=12, eos_token_id=end)[:, 3:]
    for row, whole in zip(written, greedy, strict=True):
        stop = list(whole).index(end) + 1 if end in whole else len(whole)
        assert list(row[:stop]) == list(whole[:stop])
        assert not row[stop:].any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0"),
    ],
)
def test_a_number_out_of_range_is_told(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        language_model().generate(random_ids(1, 2), **arguments)
    with pytest.raises(ValueError, match="ext_len=2"):
        language_model(ext_len=2).generate(random_ids(1, 2))
    with pytest.raises(ValueError, match="must be"):
        language_model().generate(random_ids(1, 2)[0])
