"""The text-generation pipeline of transformers answers the prompt that was given."""

from __future__ import annotations

import pytest
import torch
from transformers import pipeline
from transformers.pipelines import TextGenerationPipeline

from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel, TransfoXLTokenizer

SYMBOLS = [
    "<unk>",
    "<eos>",
    "<pad>",
    *["to", "be", "or", "not", "that", "is", "the", "question", "whether", "it", "nobler", "in", "mind", "suffer"],
]
PROMPTS = ["to be or not", "question", "the mind is nobler"]
OPTIONS = {"do_sample": False, "max_new_tokens": 5, "return_full_text": False}


@pytest.fixture(scope="module")
def answering() -> TextGenerationPipeline:
    torch.manual_seed(1)
    config = TransfoXLConfig(
        vocab_size=len(SYMBOLS), cutoffs=[], d_model=16, d_embed=16, n_head=2, d_head=8, d_inner=16, div_val=1,
        n_layer=2, mem_len=40, tie_word_embeddings=False, initial_memory="empty", pad_token_id=2,
    )  # fmt: skip
    model = TransfoXLLMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float(name.endswith("layer_norm.weight")), std=0.3)
    tokenizer = TransfoXLTokenizer(symbols=SYMBOLS, already_split=True, pad_token="<pad>")
    return pipeline("text-generation", model=model, tokenizer=tokenizer)


def written(answering: TextGenerationPipeline, prompt: str) -> str:
    """What the model itself goes on with after this prompt and nothing else."""
    ids = answering.tokenizer(prompt, return_tensors="pt")["input_ids"]
    generated = answering.model.generate(ids, do_sample=False, max_new_tokens=5)
    return answering.tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_nothing_is_put_before_a_prompt(answering: TextGenerationPipeline, prompt: str) -> None:
    assert answering(prompt, **OPTIONS)[0]["generated_text"] == written(answering, prompt)
    assert answering(prompt, **OPTIONS | {"return_full_text": True})[0]["generated_text"].startswith(prompt)


def test_prompts_of_a_batch_get_the_answers_that_they_get_alone(answering: TextGenerationPipeline) -> None:
    answers = answering(PROMPTS, batch_size=3, **OPTIONS)
    assert [answer[0]["generated_text"] for answer in answers] == [written(answering, prompt) for prompt in PROMPTS]
    assert len({answer[0]["generated_text"] for answer in answers}) > 1


def whole_and_stopped(answering: TextGenerationPipeline, prompt: str, stop: str | list[str]) -> list[torch.Tensor]:
    """The ids [T] of prompt and answer, with nothing to stop it and with these strings."""
    model, tokenizer = answering.model, answering.tokenizer
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    written = []
    for options in ({}, {"stop_strings": stop, "tokenizer": tokenizer}):
        torch.manual_seed(3)
        written.append(model.generate(ids, do_sample=True, top_k=0, max_new_tokens=12, **options)[0])
    return written


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_text_ends_with_the_string_that_stops_it(answering: TextGenerationPipeline, number: int) -> None:
    whole, _ = whole_and_stopped(answering, "to be or not", "never")
    words = [answering.tokenizer.decode(token) for token in whole]
    stop = " ".join(words[3 + number : 5 + number])
    stopped = whole_and_stopped(answering, "to be or not", ["never", stop])[1]
    end = next(i for i in range(5, len(words) + 1) if stop in " ".join(words[i - 2 : i]))
    assert torch.equal(stopped, whole[:end])
    assert end < len(words)


def test_an_empty_string_stops_nothing_and_is_refused(answering: TextGenerationPipeline) -> None:
    with pytest.raises(ValueError, match="stop_strings is '', but must be one string or several, none of them empty"):
        whole_and_stopped(answering, "to be", "")
