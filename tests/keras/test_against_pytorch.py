"""The Keras classes compute what the PyTorch classes of this library compute, where no file of others says it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import ops

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.keras.folder import load_weights
from transformer_xl.keras.heads import KerasTransfoXLForSequenceClassification, KerasTransfoXLLMHeadModel
from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel

from ..golden_files import golden_cases, read_golden_file
from .chain import assert_equal_numbers, random_ids, same_weights, small_config

EMPTY_START_CASES = golden_cases("original_torch_type_0")
LEFT, RIGHT = [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]


def pair(**fields: Any) -> tuple[Any, Any]:
    """The same small model in PyTorch and in Keras."""
    module = TransfoXLLMHeadModel(small_config(**fields)).eval()
    return module, same_weights(KerasTransfoXLLMHeadModel(module.config), module)


@pytest.mark.parametrize("case", EMPTY_START_CASES)
def test_a_memory_that_starts_empty_gives_the_numbers_of_the_authors(case: str) -> None:
    golden = read_golden_file(f"original_torch_type_0{case}")
    model = KerasTransfoXLLMHeadModel(TransfoXLConfig.from_dict(golden.config))
    load_weights(model, {name: tensor.numpy() for name, tensor in golden.weights.items()})
    mems = [tensor.numpy() for tensor in golden.arrays["initial_mems"]] if "initial_mems" in golden.arrays else None
    for number, segment in enumerate(golden.segments):
        output = model(segment["input_ids"].numpy(), mems=mems, shift_labels=segment["targets"].numpy())
        assert_equal_numbers(output.losses, segment["losses"], f"losses of segment {number}")
        assert_equal_numbers(ops.stack(output.mems), segment["mems"], f"memories of segment {number}")
        mems = output.mems


@pytest.mark.parametrize("initial_memory", ["zeros", "empty"])
@pytest.mark.parametrize("mask", [LEFT, RIGHT], ids=["left", "right"])
def test_padding_is_treated_as_in_pytorch_in_every_segment(initial_memory: str, mask: list[list[int]]) -> None:
    module, model = pair(initial_memory=initial_memory, same_length=True)
    theirs = ours = None
    for seed in range(3):
        ids = random_ids(2, 6, seed)
        with torch.no_grad():
            expected = module(
                torch.tensor(ids).long(), mems=theirs, attention_mask=torch.tensor(mask), output_attentions=True
            )
        output = model(ids, mems=ours, attention_mask=np.array(mask), output_attentions=True)
        real = np.array(mask, bool)
        assert_equal_numbers(ops.convert_to_numpy(output.logits)[real], expected.logits.numpy()[real], "scores")
        assert_equal_numbers(ops.stack(output.mems), torch.stack(expected.mems).numpy(), "memories")
        attentions = np.swapaxes(ops.convert_to_numpy(ops.stack(output.attentions)), 2, 3)[:, real]
        wanted = torch.stack(expected.attentions).transpose(2, 3).numpy()[:, real]
        assert_equal_numbers(attentions, wanted, "attentions")
        theirs, ours = expected.mems, output.mems


def test_without_memory_same_length_sees_no_future_as_in_pytorch() -> None:
    module, model = pair(mem_len=0, same_length=True)
    ids = random_ids(2, 6)
    with torch.no_grad():
        expected = module(torch.tensor(ids).long())
    assert_equal_numbers(model(ids).logits, expected.logits.numpy(), "scores")


def test_a_mask_over_memory_and_segment_is_treated_as_in_pytorch() -> None:
    module, model = pair()
    ids, mask = random_ids(2, 6), np.ones((2, 13), "int32")
    mask[0, :3] = 0
    with torch.no_grad():
        mems = module(torch.tensor(ids).long()).mems
        expected = module(torch.tensor(ids).long(), mems=mems, attention_mask=torch.tensor(mask))
    output = model(ids, mems=[layer.numpy() for layer in mems], attention_mask=mask)
    assert_equal_numbers(output.logits, expected.logits.numpy(), "scores")


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_classifier_finds_the_same_last_token(padding_side: str) -> None:
    module = TransfoXLForSequenceClassification(small_config(num_labels=3, pad_token_id=0)).eval()
    model = same_weights(KerasTransfoXLForSequenceClassification(module.config), module)
    ids = random_ids(2, 6)
    ids[0, :2] = ids[0, :2] if padding_side == "right" else 0
    ids[0, 4:] = 0 if padding_side == "right" else ids[0, 4:]
    with torch.no_grad():
        expected = module(torch.tensor(ids).long(), labels=torch.tensor([2, 1]))
    output = model(ids, labels=np.array([2, 1]))
    assert_equal_numbers(output.logits, expected.logits.numpy(), "class scores")
    assert_equal_numbers(output.loss, expected.loss.numpy(), "loss")


def test_labels_that_are_left_out_and_labels_that_are_shifted_give_the_losses_of_pytorch() -> None:
    module, model = pair()
    ids, labels = random_ids(2, 6), random_ids(2, 6, seed=1)
    labels[0, 2] = labels[1, 5] = -100
    with torch.no_grad():
        expected = module(torch.tensor(ids).long(), shift_labels=torch.tensor(labels).long())
    output = model(ids, shift_labels=labels)
    assert_equal_numbers(output.losses, expected.losses.numpy(), "losses")
    assert_equal_numbers(output.loss, expected.loss.numpy(), "loss")
    assert float(ops.convert_to_numpy(model(ids, labels=np.full_like(ids, -100)).loss)) == 0.0


def test_five_steps_of_adam_give_the_losses_of_pytorch() -> None:
    module = TransfoXLLMHeadModel(small_config()).train()
    model = same_weights(KerasTransfoXLLMHeadModel(module.config, stateful_batch_size=4), module)
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-8))
    optimizer, mems, expected, losses = torch.optim.Adam(module.parameters(), lr=1e-2, eps=1e-8), None, [], []
    for seed in range(5):
        ids = random_ids(4, 6, seed)
        output = module(torch.tensor(ids).long(), mems=mems, labels=torch.tensor(ids).long())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        mems = output.mems
        expected.append(output.loss.item())
        losses.append(model.train_on_batch(ids, ids))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert expected[-1] < expected[0]


def test_greedy_generation_writes_the_tokens_of_pytorch_beyond_the_memory() -> None:
    module, model = pair(tie_word_embeddings=False, same_length=True)
    prompt = random_ids(2, 5)
    expected = module.generate(torch.tensor(prompt).long(), max_new_tokens=30, do_sample=False, eos_token_id=None)
    assert np.array_equal(model.generate(prompt, max_new_tokens=30), expected.numpy())
