from __future__ import annotations

import copy

import pytest
import torch

from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel
from transformer_xl.modeling.memory import ProjectedWindow

VOCAB = 50


def make_model(**overrides) -> TransfoXLLMHeadModel:
    settings = {
        "vocab_size": VOCAB,
        "cutoffs": [10, 30],
        "d_model": 16,
        "d_embed": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
        "n_layer": 3,
        "mem_len": 6,
        "clamp_len": 4,
        "div_val": 2,
        "init_std": 0.3,
        "proj_init_std": 0.3,
        "eos_token_id": None,
    }
    return TransfoXLLMHeadModel(TransfoXLConfig(**settings | overrides)).eval()


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape)


KINDS = [
    pytest.param({"attn_type": t, "pre_lnorm": p, "same_length": s, "initial_memory": i}, id=f"type {t} {p} {s} {i}")
    for t in (0, 1)
    for p in (False, True)
    for s in (False, True)
    for i in ("zeros", "empty")
]
WINDOWED = [pytest.param({"same_length": True, "initial_memory": i}, id=i) for i in ("zeros", "empty")]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cache_gives_the_scores_that_the_memory_gives(kind):
    model = make_model(**kind)
    cache, mems = model.new_cache(), None
    for length in (5, 1, 1, 9, 3, 1):
        ids = some_ids(2, length)
        by_memory = model(ids, mems=mems)
        by_cache = model(ids, past_key_values=cache)
        torch.testing.assert_close(by_cache.logits, by_memory.logits, rtol=1e-4, atol=1e-4)
        mems = by_memory.mems


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cache_made_from_a_memory_goes_on_where_the_memory_does(kind):
    model = make_model(**kind)
    mems = model(some_ids(2, 7)).mems
    ids = some_ids(2, 4)
    expected = model(ids, mems=mems).logits
    torch.testing.assert_close(model(ids, past_key_values=model.new_cache(mems)).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_leaves_no_trace_in_a_cache(kind):
    model = make_model(**kind)
    cache, mems = model.new_cache(), None
    for rows in ([[1, 1, 1, 1], [0, 0, 1, 1]], [[1, 0, 1, 1], [1, 1, 1, 0]], [[1], [1]], [[1, 1, 1], [0, 1, 1]]):
        mask = torch.tensor(rows)
        ids = some_ids(*mask.shape)
        by_memory = model(ids, mems=mems, attention_mask=mask)
        by_cache = model(ids, past_key_values=cache, attention_mask=mask)
        tokens = mask.bool()
        torch.testing.assert_close(by_cache.logits[tokens], by_memory.logits[tokens], rtol=1e-4, atol=1e-4)
        mems = by_memory.mems


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_row_that_was_reset_is_at_the_beginning_of_a_text(kind):
    model = make_model(**kind)
    cache = model.new_cache()
    model(some_ids(2, 9), past_key_values=cache)
    cache.reset_rows(torch.tensor([False, True]))
    ids = some_ids(2, 3)
    alone = model(ids[1:], past_key_values=model.new_cache()).logits
    torch.testing.assert_close(model(ids, past_key_values=cache).logits[1:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("slack", [1, 2, 5, 40])
@torch.no_grad()
def test_the_window_slides_on_when_its_buffer_is_full(monkeypatch, slack):
    monkeypatch.setattr(ProjectedWindow, "SLACK", slack)
    model = make_model(same_length=True, n_layer=1)
    cache, mems = model.new_cache(), None
    ids = some_ids(1, 700)
    for segment in ids.split(1, dim=1):
        logits = model(segment, past_key_values=cache).logits
    for segment in ids.split(350, dim=1):
        output = model(segment, mems=mems)
        mems = output.mems
    torch.testing.assert_close(logits[:, -1], output.logits[:, -1], rtol=1e-4, atol=1e-4)
    assert cache.windows[0].keys.shape[-1] < 600


@torch.no_grad()
def test_positions_can_be_taken_back():
    model = make_model(same_length=True)
    cache = model.new_cache()
    cache.activate_past_recording()
    model(some_ids(1, 9), past_key_values=cache)
    again = copy.deepcopy(cache)
    model(some_ids(1, 4), past_key_values=again)
    again.crop(-4)
    ids = some_ids(1, 2)
    expected = model(ids, past_key_values=cache).logits
    torch.testing.assert_close(model(ids, past_key_values=again).logits, expected)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_greedy_generation_takes_the_likeliest_token_at_each_step(kind):
    model = make_model(**kind)
    ids = some_ids(2, 4)
    written = model.generate(ids, max_new_tokens=12, do_sample=False)
    output = model(ids)
    for _ in range(12):
        newest = output.logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, newest], dim=1)
        output = model(newest, mems=output.mems)
    assert torch.equal(written, ids)


@pytest.mark.parametrize("kind", WINDOWED)
class TestEachWayOfGeneratingWritesTheGreedyText:
    """With a window of equal length the text does not depend on how it was cut."""

    def check(self, kind, **ways):
        model = make_model(**kind)
        ids = some_ids(1, 9)
        greedy = model.generate(ids, max_new_tokens=12, do_sample=False)
        for way in ways.values():
            assert torch.equal(way(model, ids), greedy)

    def test_prompt_lookup(self, kind):
        self.check(
            kind,
            lookup=lambda model, ids: model.generate(
                ids, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=3
            ),
        )

    def test_an_assistant(self, kind):
        self.check(
            kind,
            assisted=lambda model, ids: model.generate(
                ids, max_new_tokens=12, do_sample=False, assistant_model=copy.deepcopy(model)
            ),
        )

    def test_chunks_of_the_prompt(self, kind):
        self.check(
            kind,
            chunks=lambda model, ids: model.generate(ids, max_new_tokens=12, do_sample=False, prefill_chunk_size=2),
        )

    def test_a_returned_cache(self, kind):
        def in_two_calls(model, ids):
            first = model.generate(ids, max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
            return model.generate(
                first.sequences, past_key_values=first.past_key_values, max_new_tokens=7, do_sample=False
            )

        self.check(kind, continued=in_two_calls)

    def test_embeddings_for_a_prompt(self, kind):
        def from_embeddings(model, ids):
            embeddings = model.get_input_embeddings()(ids)
            return torch.cat([ids, model.generate(inputs_embeds=embeddings, max_new_tokens=12, do_sample=False)], dim=1)

        self.check(kind, embeddings=from_embeddings)

    def test_a_memory_for_the_first_half_of_the_prompt(self, kind):
        def from_memory(model, ids):
            with torch.no_grad():
                mems = model(ids[:, :5]).mems
            return torch.cat([ids[:, :5], model.generate(ids[:, 5:], mems=mems, max_new_tokens=12, do_sample=False)], 1)

        self.check(kind, memory=from_memory)


@torch.no_grad()
def test_a_padded_prompt_is_continued_like_the_prompt_alone():
    model = make_model(same_length=True)
    short, long = some_ids(1, 3), some_ids(1, 7)
    batch = torch.cat([torch.cat([torch.zeros(1, 4, dtype=torch.long), short], dim=1), long])
    mask = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [1] * 7])
    written = model.generate(batch, attention_mask=mask, max_new_tokens=8, do_sample=False)[:, 7:]
    for row, prompt in zip(written, (short, long), strict=True):
        assert torch.equal(row, model.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :])


@torch.no_grad()
def test_beams_find_what_they_find_without_a_cache():
    model = make_model(initial_memory="empty", mem_len=40)
    ids = some_ids(2, 4)
    beams = {"num_beams": 4, "max_new_tokens": 10, "do_sample": False}
    assert torch.equal(model.generate(ids, **beams), model.generate(ids, **beams, use_cache=False))


def test_a_cache_refuses_to_take_part_in_training():
    model = make_model()
    with pytest.raises(ValueError, match=r"no_grad"):
        model(some_ids(1, 3), past_key_values=model.new_cache())


def test_a_cache_and_a_memory_together_are_refused():
    model = make_model()
    with torch.no_grad(), pytest.raises(ValueError, match="either mems or past_key_values"):
        model(some_ids(1, 3), mems=model.init_mems(1), past_key_values=model.new_cache())


@pytest.mark.parametrize("attn_type", [2, 3])
def test_absolute_positions_have_no_cache_but_generate_from_the_memory(attn_type):
    model = make_model(attn_type=attn_type)
    with pytest.raises(ValueError, match="attn_type"):
        model.new_cache()
    assert model.generate(some_ids(2, 3), max_new_tokens=4).shape == (2, 7)
