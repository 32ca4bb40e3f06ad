from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_xl.data.segments import NOT_COUNTED, Segments
from transformer_xl.evaluation import Protocol, evaluate
from transformer_xl.evaluation.measurement import reading_by
from transformer_xl.evaluation.stretches import stretches
from transformer_xl.modeling.reading import Reader

sizes = {
    "num_tokens": st.integers(2, 200),
    "segment_length": st.integers(1, 20),
    "num_rows": st.integers(1, 9),
    "warm_up": st.integers(0, 6),
}


@given(**sizes)
def test_every_token_counts_once_after_the_segments_that_come_before_it(num_tokens, segment_length, num_rows, warm_up):
    stream = Segments(np.arange(num_tokens, dtype=np.uint16), 1, segment_length)
    segments = list(stretches(stream, num_rows, warm_up))
    inputs, targets = (torch.cat([getattr(each, name) for each in segments], dim=1) for name in ("inputs", "targets"))
    counted = targets != NOT_COUNTED
    assert sorted(targets[counted].tolist()) == list(range(1, num_tokens))
    assert torch.equal(targets[counted], inputs[counted] + 1)
    for row in range(len(inputs)):
        if not counted[row].any():
            continue
        first, last = counted[row].nonzero()[[0, -1], 0].tolist()
        assert torch.all(inputs[row, : last + 1].diff() == 1)
        assert first == (0 if row == 0 else warm_up * segment_length)


def test_so_many_rows_take_so_much_fewer_steps():
    stream = Segments(np.arange(1001, dtype=np.uint16), 1, 10)
    assert len(stream) == 100
    assert [len(list(stretches(stream, num_rows, 4))) for num_rows in (1, 2, 4)] == [100, 52, 28]


@pytest.mark.parametrize(("warm_up", "is_enough"), [(6, True), (5, False)])
def test_the_warm_up_is_as_long_as_it_must_be_and_no_longer(make_model, warm_up, is_enough):
    model = make_model(n_layer=3)
    text = np.random.default_rng(1).integers(0, 11, 203, dtype=np.uint8)
    protocol = Protocol(4, 8)
    nats = 0.0
    with reading_by(protocol, model), torch.no_grad():
        reader = Reader(model)
        for segment in stretches(Segments(text, 1, 4), 3, warm_up):
            nats += reader.losses(segment.inputs, segment.targets).sum(dtype=torch.float64).item()
    assert (nats == pytest.approx(evaluate(model, text, protocol).nats, rel=1e-7)) is is_enough
