"""`generate()` writes what the model finds likeliest, from the prompt that it was given and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import BaseStreamer

from transformer_xl import TransfoXLLMHeadModel

from . import tiny_models
from .tiny_models import ATTENTION_TYPES, INITIAL_MEMORIES, assert_close, random_ids

SETTINGS = [
    {},
    {"same_length": True},
    {"clamp_len": 3},
    {"attn_type": 1},
    {"attn_type": 1, "same_length": True},
    {"attn_type": 2},
    {"attn_type": 3},
    {"mem_len": 0},
]


@pytest.fixture(autouse=True)
def no_warning_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that transformers says about these calls may mislead, so it had better say nothing."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield
    logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


def tiny_model(**changes: Any) -> Any:
    """A tiny model that does not simply repeat the last token, as noise with tied embeddings does."""
    return tiny_models.tiny_model(**{"tie_word_embeddings": False, **changes})


def generate(model: Any, ids: Tensor | None = None, **options: Any) -> Tensor:
    return model.generate(ids, **{"max_new_tokens": 6, "do_sample": False, **options})


def remembering_all(**changes: Any) -> Any:
    return tiny_model(**{"mem_len": 30, "initial_memory": "empty", "tgt_len": 30, **changes})


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("length", [1, 5])
@torch.no_grad()
def test_greedy_generation_takes_the_likeliest_token_of_the_whole_text_read_anew(
    changes: dict[str, Any], length: int
) -> None:
    model, text = remembering_all(**changes), random_ids(2, length)
    generated = generate(model, text)
    if changes.get("attn_type") in (2, 3):  # Their positions count from the end of a segment, so the memory matters.
        text, mems = generated[:, :length], None
        for step in range(6):
            output = model(text[:, -1:] if step else text, mems=mems)
            mems, text = output.mems, torch.cat([text, output.logits[:, -1:].argmax(-1)], dim=1)
    else:
        for _ in range(6):
            text = torch.cat([text, model(text).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generated, text)


@pytest.mark.parametrize("attn_type", [0, 1])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_reading_everything_anew_at_each_step_writes_the_same(attn_type: int, num_beams: int) -> None:
    model, ids = remembering_all(attn_type=attn_type), random_ids(2, 4)
    options = {"num_beams": num_beams, "num_return_sequences": num_beams}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    cached, anew = generate(model, ids, **options), generate(model, ids, use_cache=False, **options)
    assert torch.equal(cached.sequences, anew.sequences)
    assert_close(torch.stack(cached.scores), torch.stack(anew.scores))


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("initial_memory", INITIAL_MEMORIES)
@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_left_padded_batch_writes_what_its_rows_write_alone(
    changes: dict[str, Any], initial_memory: str, num_beams: int
) -> None:
    model = tiny_model(**{"initial_memory": initial_memory, "pad_token_id": 0, **changes})
    ids, mask = random_ids(3, 5), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])
    together = generate(model, ids, attention_mask=mask, num_beams=num_beams)[:, 5:]
    for row, is_token in enumerate(mask.bool()):
        prompt = ids[row : row + 1, is_token]
        alone = generate(model, prompt, attention_mask=torch.ones_like(prompt), num_beams=num_beams)
        assert torch.equal(together[row], alone[0, prompt.shape[1] :])


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_beams_carry_their_own_memory(attn_type: int) -> None:
    model, ids = tiny_model(attn_type=attn_type), random_ids(1, 4)
    options = {"return_dict_in_generate": True, "output_scores": True, "length_penalty": 0.0}
    generated = generate(model, ids, num_beams=4, num_return_sequences=4, **options)
    assert len({tuple(row) for row in generated.sequences.tolist()}) == 4
    for sequence, score in zip(generated.sequences, generated.sequences_scores, strict=True):
        mems, total = None, 0.0
        for step in range(6):
            segment = sequence[None, :4] if step == 0 else sequence[None, 3 + step : 4 + step]
            output = model(segment, mems=mems)
            mems, total = output.mems, total + output.logits[0, -1, sequence[4 + step]].item()
        assert total == pytest.approx(score.item(), abs=1e-3)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
def test_several_samples_of_one_prompt_differ_and_follow_the_seed(attn_type: int) -> None:
    model, ids = tiny_model(attn_type=attn_type), random_ids(2, 4)
    options = {"do_sample": True, "num_return_sequences": 3, "top_k": 0, "temperature": 5.0}
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(generate(model, ids, **options))
    assert results[0].shape == (6, 10)
    assert torch.equal(results[0][:, :4], ids.repeat_interleave(3, dim=0))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert len({tuple(row) for row in results[0][:3].tolist()}) > 1


class Collector(BaseStreamer):
    """Keeps what is streamed."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_a_streamer_gets_the_prompt_and_every_token() -> None:
    model, streamer = tiny_model(), Collector()
    generated = generate(model, random_ids(1, 4), streamer=streamer)
    assert streamer.tokens == generated[0].tolist()
    assert streamer.ended


def test_a_call_that_names_no_length_writes_twenty_tokens() -> None:
    model = tiny_model()
    assert model.generate(random_ids(1, 7)).shape == (1, 27)
    assert model.generate(inputs_embeds=torch.randn(1, 7, 16)).shape == (1, 20)


def test_without_a_prompt_generation_begins_with_the_first_token() -> None:
    model = tiny_model(bos_token_id=3)
    generated = model.generate()
    assert generated.shape == (1, 21)
    assert generated[0, 0] == 3


def test_lengths_mean_what_they_say() -> None:
    model, ids = tiny_model(), random_ids(1, 4)
    assert model.generate(ids, max_length=9).shape == (1, 9)
    assert model.generate(ids, max_new_tokens=9).shape == (1, 13)


def test_generation_ends_where_it_is_told_to() -> None:
    model, ids = tiny_model(), random_ids(1, 4)
    written = generate(model, ids)[0, 4:].tolist()
    end = written[2]
    stopped = generate(model, ids, eos_token_id=end, pad_token_id=0)[0, 4:].tolist()
    assert stopped == written[: written.index(end) + 1]


def test_the_end_of_a_line_ends_no_text_unless_asked(tmp_path: Path) -> None:
    model, ids = tiny_model(), random_ids(1, 4)
    line_end = int(generate(model, ids)[0, 6])
    model.config.eos_token_id = line_end  # As files of transformers 4 have it, which stops there.
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    loaded = TransfoXLLMHeadModel.from_pretrained(tmp_path).eval()
    assert torch.equal(generate(loaded, ids), generate(model, ids))
    assert generate(loaded, ids).shape == (1, 10)
    assert generate(loaded, ids, eos_token_id=line_end, pad_token_id=0)[0, -1] == line_end
    assert generate(loaded, ids, eos_token_id=line_end, pad_token_id=0).shape[1] <= 7


@pytest.mark.parametrize("changes", [changes for changes in SETTINGS if changes != {"mem_len": 0}], ids=str)
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_prompt_of_embeddings_writes_what_its_tokens_write(changes: dict[str, Any], use_cache: bool) -> None:
    model, ids = tiny_model(**changes), random_ids(2, 5)
    embeddings = model.transformer.word_emb(ids).detach()
    written = generate(model, ids)[:, 5:]
    assert torch.equal(generate(model, inputs_embeds=embeddings, use_cache=use_cache), written)


def test_embeddings_without_a_memory_to_go_on_from_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs_embeds .*mem_len is 0.*input_ids"):
        generate(tiny_model(mem_len=0), inputs_embeds=torch.randn(1, 3, 16))


def test_embeddings_are_read_and_the_ids_that_come_with_them_only_repeated() -> None:
    model, ids = tiny_model(), random_ids(2, 5)
    embeddings, others = model.transformer.word_emb(ids).detach(), random_ids(2, 5)
    generated = generate(model, others, inputs_embeds=embeddings)
    assert torch.equal(generated, torch.cat([others, generate(model, ids)[:, 5:]], dim=1))


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_goes_on_from_a_memory(attn_type: int, use_cache: bool) -> None:
    model = remembering_all(attn_type=attn_type)
    mems, ids = model(random_ids(2, 6)).mems, random_ids(2, 4)
    options = {"use_cache": use_cache, "return_dict_in_generate": True, "output_scores": True}
    scores = generate(model, ids, mems=mems, **options).scores[0]
    assert_close(scores, model(ids, mems=mems).logits[:, -1])
    assert not torch.allclose(scores, model(ids).logits[:, -1], atol=1e-3)


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_every_beam_and_every_sample_goes_on_from_the_memory_of_its_prompt(attn_type: int, use_cache: bool) -> None:
    model = remembering_all(attn_type=attn_type)
    mems, ids = model(random_ids(2, 6)).mems, random_ids(2, 4)
    options = {"use_cache": use_cache, "num_beams": 3, "num_return_sequences": 3}
    together = generate(model, ids, mems=mems, **options)
    for row in range(2):
        row_mems = [layer[:, row : row + 1] for layer in mems]
        assert torch.equal(
            together[3 * row : 3 * row + 3], generate(model, ids[row : row + 1], mems=row_mems, **options)
        )
    samples = generate(model, ids, mems=mems, use_cache=use_cache, do_sample=True, top_k=1, num_return_sequences=2)
    greedy = generate(model, ids, mems=mems, use_cache=use_cache)
    assert torch.equal(samples, greedy.repeat_interleave(2, dim=0))


def test_a_model_in_half_precision_writes_too() -> None:
    model = tiny_model().bfloat16()
    assert generate(model, random_ids(2, 4), num_beams=2).shape == (2, 10)


def test_generation_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    before = model.config.to_dict()
    ids = random_ids(1, 4)
    first = generate(model, ids)
    assert torch.equal(generate(model, ids), first)
    assert model.config.to_dict() == before


@pytest.mark.parametrize("div_val", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 1},
        {"do_sample": True, "top_k": 4, "temperature": 1.7},
        {"do_sample": True, "top_k": 5, "top_p": 0.8, "min_p": 0.05},
        {"do_sample": True, "top_k": 60},
    ],
    ids=str,
)
def test_rare_tokens_that_cannot_be_chosen_change_nothing(
    div_val: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = tiny_model(div_val=div_val), random_ids(3, 4)
    written = []
    asked = []
    original = model.crit.log_prob_of_likeliest

    def noted(hidden: Tensor, k: int) -> Tensor:
        asked.append(k)
        return original(hidden, k)

    for likeliest in (noted, lambda hidden, k: model.crit.log_prob(hidden)):
        monkeypatch.setattr(model.crit, "log_prob_of_likeliest", likeliest)
        torch.manual_seed(1)
        written.append(generate(model, ids, max_new_tokens=30, **options))
    assert torch.equal(*written)
    assert asked == [options.get("top_k", 1)] * 30


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 2},
        {"do_sample": True, "top_k": 0},
        {"do_sample": True, "top_k": 0, "top_p": 0.5},
        {"return_dict_in_generate": True, "output_scores": True},
        {"return_dict_in_generate": True, "output_logits": True},
    ],
    ids=str,
)
def test_what_looks_at_all_tokens_gets_all_tokens(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.delattr(type(model.crit), "log_prob_of_likeliest")
    generate(model, random_ids(1, 4), **options)
