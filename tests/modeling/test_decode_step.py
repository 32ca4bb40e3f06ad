from __future__ import annotations

import pytest
import torch

from transformer_xl.modeling.decode_step import DecodeStep, ExportableStep

from .tiny_models import assert_close, random_ids, tiny_model

KINDS = [
    pytest.param({"pre_lnorm": p, "same_length": s, "initial_memory": i}, id=f"{p} {s} {i}")
    for p in (False, True)
    for s in (False, True)
    for i in ("zeros", "empty")
]


def read(model, ids):
    """A cache that has read ids [B, T]."""
    cache = model.new_cache()
    with torch.no_grad():
        model(ids, past_key_values=cache)
    return cache


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_step_gives_the_scores_that_the_cache_gives(kind):
    model = tiny_model(**kind)
    cache = read(model, random_ids(2, 4))
    step = DecodeStep(model)
    ring = step.ring(cache)
    for token in random_ids(20, 2):
        expected = model(token[:, None], past_key_values=cache).logits[:, 0]
        assert_close(step(token, *ring), expected)


def test_a_row_that_was_reset_is_at_the_beginning_of_a_text():
    model = tiny_model(initial_memory="empty")
    cache = read(model, random_ids(2, 4))
    cache.reset_rows(torch.tensor([True, False]))
    step = DecodeStep(model)
    token = random_ids(2)
    with torch.no_grad():
        assert_close(step(token, *step.ring(cache))[:1], model(token[:1, None]).logits[:, 0])


def test_the_step_is_compiled_once_however_much_is_generated():
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    model = tiny_model()
    cache = read(model, random_ids(1, 9))
    step, counter = DecodeStep(model), CompileCounter()
    compiled = torch.compile(step, backend=counter, fullgraph=True, dynamic=False)
    ring = step.ring(cache)
    for _ in range(30):
        compiled(random_ids(1), *ring)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_compiled_step_gives_equal_numbers():
    torch._dynamo.reset()
    model = tiny_model()
    cache = read(model, random_ids(2, 9))
    step = DecodeStep(model)
    ring, other = step.ring(cache), step.ring(cache)
    compiled = torch.compile(step, fullgraph=True, dynamic=False)
    for token in random_ids(20, 2):
        assert_close(compiled(token, *ring), step(token, *other))


def exported_inputs(model):
    cache = read(model, random_ids(2, 9))
    step = DecodeStep(model)
    ring = step.ring(cache)
    return step, (random_ids(2), ring.exists, ring.place, *ring.keys, *ring.values)


@torch.no_grad()
def test_the_exported_step_gives_equal_numbers_and_the_ring():
    step, inputs = exported_inputs(tiny_model())
    program = torch.export.export(ExportableStep(step), inputs)
    _, *past = inputs
    for token in random_ids(8, 2):
        expected = ExportableStep(step)(token, *past)
        for ours, theirs in zip(program.module()(token, *past), expected, strict=True):
            assert_close(ours, theirs)
        _, *past = expected


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@torch.no_grad()
def test_onnxruntime_gives_equal_numbers(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    step, inputs = exported_inputs(tiny_model())
    torch.onnx.export(ExportableStep(step), inputs, tmp_path / "step.onnx", dynamo=True)
    running = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    names = [each.name for each in running.get_inputs()]
    _, *past = inputs
    for token in random_ids(8, 2):
        expected = ExportableStep(step)(token, *past)
        given = {name: tensor.numpy() for name, tensor in zip(names, (token, *past), strict=True)}
        for ours, theirs in zip(running.run(None, given), expected, strict=True):
            assert_close(torch.from_numpy(ours), theirs)
        _, *past = expected


@pytest.mark.parametrize("overrides", [{"attn_type": 1}, {"attn_type": 2}, {"mem_len": 0}], ids=str)
def test_a_model_without_distances_or_memory_is_refused(overrides):
    with pytest.raises(ValueError, match="attn_type=0 and a memory"):
        DecodeStep(tiny_model(**overrides))
