"""The Keras classes compute the numbers of transformers 4, forward and backward, on the backend of this process.

The files `legacy_hf_*` are of its PyTorch classes, `legacy_tf_*` of its TensorFlow classes.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.keras.folder import load_weights
from transformer_xl.keras.heads import KerasTransfoXLForSequenceClassification, KerasTransfoXLLMHeadModel

from ..golden_files import GoldenFile, golden_cases, read_golden_file
from .chain import Chain, assert_equal_numbers

PREFIX = "legacy_hf_"
TENSORFLOW_PREFIX = "legacy_tf_"
CASES = golden_cases(PREFIX)
GENERATION_CASES = [case for case in CASES if case.startswith("generate_")]
SEGMENT_CASES = [case for case in CASES if case not in GENERATION_CASES]
INPUTS = ("input_ids", "inputs_embeds", "head_mask", "labels")


def grouped(cases: list[str]) -> list[Any]:
    """The cases with a mark by which one worker gets all tests of a case, and so replays it once."""
    return [pytest.param(case, marks=pytest.mark.xdist_group(case)) for case in cases]


class Replay(NamedTuple):
    """A golden file, what our model returns for each segment, and the gradients of the sum of the losses."""

    golden: GoldenFile
    outputs: list[dict[str, np.ndarray]]
    gradients: dict[str, np.ndarray]


def build(case: str, golden: GoldenFile) -> Any:
    classifies = case.startswith("classify_")
    model_class = KerasTransfoXLForSequenceClassification if classifies else KerasTransfoXLLMHeadModel
    model = model_class(TransfoXLConfig.from_dict(golden.config))
    load_weights(model, {name: tensor.numpy() for name, tensor in golden.weights.items()})
    return model


@functools.cache
def replay(case: str) -> Replay:
    golden = read_golden_file(PREFIX + case)
    segments = [{name: segment[name].numpy() for name in INPUTS if name in segment} for segment in golden.segments]
    return Replay(golden, *Chain(build(case, golden)).replay(segments))


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("case", grouped(SEGMENT_CASES))
def test_every_output_of_every_segment_is_that_of_transformers_4(case: str) -> None:
    golden, outputs, _ = replay(case)
    for number, (ours, segment) in enumerate(zip(outputs, golden.segments, strict=True)):
        expected = {name: tensor for name, tensor in segment.items() if name not in INPUTS}
        assert ours.keys() == expected.keys()
        for name, tensor in expected.items():
            assert_equal_numbers(ours[name], tensor.numpy(), f"{name} of segment {number}")


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("case", grouped(SEGMENT_CASES))
def test_the_gradient_of_every_weight_is_that_of_transformers_4(case: str) -> None:
    golden, _, gradients = replay(case)
    assert gradients.keys() == golden.gradients.keys()
    for name, expected in golden.gradients.items():
        assert_equal_numbers(gradients[name], expected.numpy(), f"gradient of {name}")


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("case", grouped(golden_cases(TENSORFLOW_PREFIX)))
def test_what_the_tensorflow_classes_of_transformers_4_computed_is_computed(case: str) -> None:
    outputs = replay(case).outputs
    for number, segment in enumerate(read_golden_file(TENSORFLOW_PREFIX + case).segments):
        for name, tensor in segment.items():
            assert_equal_numbers(outputs[number][name], tensor.numpy(), f"{name} of segment {number}")


@pytest.mark.parametrize("case", GENERATION_CASES)
def test_greedy_generation_writes_the_tokens_of_transformers_4(case: str) -> None:
    golden = read_golden_file(PREFIX + case)
    written = build(case, golden).generate(golden.arrays["prompt"].numpy(), max_new_tokens=20)
    assert np.array_equal(written, golden.arrays["greedy"].numpy())
