"""Our classes compute the numbers of the same classes in transformers 4.37.2 (files of oracles/write_legacy_hf.py)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel

from .golden_files import (
    GoldenFile,
    assert_equal_gradients,
    assert_equal_numbers,
    golden_cases,
    read_golden_file,
)

PREFIX = "legacy_hf_"
CASES = golden_cases(PREFIX)
GENERATION_CASES = [case for case in CASES if case.startswith("generate_")]
CLASSIFICATION_CASES = [case for case in CASES if case.startswith("classify_")]
SEGMENT_CASES = [case for case in CASES if case not in GENERATION_CASES]
LANGUAGE_MODEL_CASES = [case for case in SEGMENT_CASES if case not in CLASSIFICATION_CASES]


class Replay(NamedTuple):
    """A golden file, our model after the backward pass, and our outputs per segment."""

    golden: GoldenFile
    model: Any
    outputs: list[dict[str, torch.Tensor]]

    def assert_equal(self, name: str) -> None:
        """Compares one output of all segments."""
        for number, (ours, segment) in enumerate(zip(self.outputs, self.golden.segments, strict=True)):
            assert_equal_numbers(ours[name], segment[name], f"{name} of segment {number}")


def model_class(case: str) -> type[Any]:
    return TransfoXLForSequenceClassification if case.startswith("classify_") else TransfoXLLMHeadModel


def build(case: str, golden: GoldenFile) -> Any:
    model = model_class(case)(TransfoXLConfig.from_dict(golden.config))
    model.load_state_dict(golden.weights)
    return model.eval()


def forward(
    case: str, model: Any, segment: dict[str, torch.Tensor], mems: list[torch.Tensor] | None
) -> tuple[list[torch.Tensor] | None, dict[str, torch.Tensor]]:
    """One segment as the oracle ran it: its memory and what is compared (a classifier needs one call only)."""
    inputs = {name: segment[name] for name in ("input_ids", "inputs_embeds", "head_mask") if name in segment}
    traced = {"output_hidden_states": True, "output_attentions": True}
    if case in CLASSIFICATION_CASES:
        output = model(**inputs, **traced, mems=mems, labels=segment["labels"])
        results = {"logits": output.logits, "loss": output.loss}
    else:
        output = model(**inputs, **traced, mems=mems)
        trained = model(**inputs, mems=mems, labels=segment["labels"])
        results = {"prediction_scores": output.prediction_scores, "losses": trained.losses, "loss": trained.loss}
    stacks = {"hidden_states": output.hidden_states, "attentions": output.attentions, "mems": output.mems}
    results |= {name: torch.stack(tuple(layers)) for name, layers in stacks.items() if layers is not None}
    return output.mems, results


@functools.cache
def replay(case: str) -> Replay:
    """Runs our model over the segments, on its own memories, and backwards through the sum of the losses."""
    golden = read_golden_file(PREFIX + case)
    model = build(case, golden)
    mems, outputs = None, []
    for segment in golden.segments:
        mems, results = forward(case, model, segment, mems)
        outputs.append(results)
    sum(results["loss"] for results in outputs).backward()
    return Replay(golden, model, outputs)


@pytest.mark.parametrize("case", SEGMENT_CASES)
def test_hidden_states_are_those_of_transformers_4(case: str) -> None:
    replay(case).assert_equal("hidden_states")


@pytest.mark.parametrize("case", SEGMENT_CASES)
def test_attentions_are_those_of_transformers_4(case: str) -> None:
    replay(case).assert_equal("attentions")


@pytest.mark.parametrize("case", SEGMENT_CASES)
def test_memories_are_those_of_transformers_4(case: str) -> None:
    if replay(case).golden.config["mem_len"] == 0:
        assert all("mems" not in results for results in replay(case).outputs)
    else:
        replay(case).assert_equal("mems")


@pytest.mark.parametrize("case", LANGUAGE_MODEL_CASES)
def test_scores_are_those_of_transformers_4(case: str) -> None:
    replay(case).assert_equal("prediction_scores")


@pytest.mark.parametrize("case", LANGUAGE_MODEL_CASES)
def test_the_loss_of_every_token_is_that_of_transformers_4_in_the_order_of_the_tokens(case: str) -> None:
    replay(case).assert_equal("losses")


@pytest.mark.parametrize("case", SEGMENT_CASES)
def test_the_loss_is_that_of_transformers_4(case: str) -> None:
    replay(case).assert_equal("loss")


@pytest.mark.parametrize("case", CLASSIFICATION_CASES)
def test_class_scores_are_those_of_transformers_4(case: str) -> None:
    replay(case).assert_equal("logits")


@pytest.mark.parametrize("case", SEGMENT_CASES)
def test_the_gradient_of_every_parameter_is_that_of_transformers_4(case: str) -> None:
    assert_equal_gradients(replay(case).model, replay(case).golden)


@pytest.mark.parametrize("case", LANGUAGE_MODEL_CASES)
def test_the_base_model_returns_the_last_hidden_state_of_transformers_4(case: str) -> None:
    golden, model, _ = replay(case)
    segment = golden.segments[0]
    inputs = {name: segment[name] for name in ("input_ids", "inputs_embeds", "head_mask") if name in segment}
    with torch.no_grad():
        output = model.transformer(**inputs)
    assert_equal_numbers(output.last_hidden_state, segment["hidden_states"][-1], "last hidden state")


def open_folder(case: str, folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Any:
    """The model of a folder as transformers 4.37.2 writes it; fails if a weight is missing or not expected."""
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model, report = model_class(case).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_transformers_4_opens_completely(case: str, tmp_path: Path) -> None:
    golden = read_golden_file(PREFIX + case)
    state = open_folder(case, tmp_path, golden.config, golden.weights).state_dict()
    assert state.keys() == golden.weights.keys()
    assert all(torch.equal(state[name], weight) for name, weight in golden.weights.items())


def test_a_folder_without_the_table_of_frequencies_opens_completely(tmp_path: Path) -> None:
    golden = read_golden_file(PREFIX + "plain")
    frequencies = golden.weights.pop("transformer.pos_emb.inv_freq")
    state = open_folder("plain", tmp_path, golden.config, golden.weights).state_dict()
    assert torch.equal(state["transformer.pos_emb.inv_freq"], frequencies)


@pytest.mark.parametrize("case", GENERATION_CASES)
def test_greedy_generation_writes_the_tokens_of_transformers_4(case: str) -> None:
    golden = read_golden_file(PREFIX + case)
    generated = build(case, golden).generate(
        golden.arrays["prompt"],
        max_new_tokens=20,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert torch.equal(generated.sequences, golden.arrays["greedy"])
    assert_equal_numbers(torch.stack(generated.scores, dim=1), golden.arrays["greedy_scores"], "scores")


@pytest.mark.parametrize("case", GENERATION_CASES)
def test_beam_search_writes_the_tokens_of_transformers_4(case: str) -> None:
    golden = read_golden_file(PREFIX + case)
    generated = build(case, golden).generate(
        golden.arrays["prompt"],
        max_new_tokens=20,
        do_sample=False,
        num_beams=3,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert torch.equal(generated.sequences, golden.arrays["beams"])
    assert_equal_numbers(generated.sequences_scores, golden.arrays["beam_scores"], "scores of the beams")
