"""Our model computes the numbers of the authors' PyTorch code (files of oracles/write_original_torch.py)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.modeling.heads import TransfoXLLMHeadModel

from .golden_files import (
    GoldenFile,
    assert_equal_gradients,
    assert_equal_numbers,
    golden_cases,
    read_golden_file,
)

PREFIX = "original_torch_"
CASES = golden_cases(PREFIX)


class Replay(NamedTuple):
    """A golden file, our model after the backward pass, and our outputs per segment."""

    golden: GoldenFile
    model: TransfoXLLMHeadModel
    outputs: list[dict[str, torch.Tensor]]

    def assert_equal(self, name: str) -> None:
        """Compares one output of all segments."""
        for number, (ours, segment) in enumerate(zip(self.outputs, self.golden.segments, strict=True)):
            assert_equal_numbers(ours[name], segment[name], f"{name} of segment {number}")


@functools.cache
def replay(case: str) -> Replay:
    """Runs our model over the segments, on its own memories, and backwards through the sum of the losses."""
    golden = read_golden_file(PREFIX + case)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**golden.config))
    model.load_state_dict(golden.weights)
    start = golden.arrays["initial_mems"]
    mems = list(start) if start.size(1) else None
    outputs = []
    for segment in golden.segments:
        output = model(segment["input_ids"], mems=mems, shift_labels=segment["targets"], output_hidden_states=True)
        mems = output.mems
        outputs.append(
            {
                "hidden_states": torch.stack(output.hidden_states),
                "mems": torch.stack(tuple(output.mems)),
                "losses": output.losses,
                "loss": output.loss,
            }
        )
    sum(results["loss"] for results in outputs).backward()
    return Replay(golden, model, outputs)


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_those_of_the_authors(case: str) -> None:
    replay(case).assert_equal("hidden_states")


@pytest.mark.parametrize("case", CASES)
def test_memories_are_those_of_the_authors(case: str) -> None:
    replay(case).assert_equal("mems")


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_every_token_is_that_of_the_authors(case: str) -> None:
    replay(case).assert_equal("losses")


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_the_authors(case: str) -> None:
    replay(case).assert_equal("loss")


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_every_parameter_is_that_of_the_authors(case: str) -> None:
    assert_equal_gradients(replay(case).model, replay(case).golden)


@pytest.mark.parametrize("case", CASES)
def test_the_weights_have_the_published_names(case: str) -> None:
    golden, model, _ = replay(case)
    assert model.state_dict().keys() == golden.weights.keys()
