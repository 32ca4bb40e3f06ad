from __future__ import annotations

import pytest

from transformer_xl.training.schedules import cosine_with_warm_up, progress


def test_progress_counts_steps_unless_there_are_minutes():
    assert progress(step=25, seconds=1e9, steps=100, minutes=None) == 0.25
    assert progress(step=25, seconds=90, steps=1, minutes=3) == 0.5


def test_progress_ends_at_one():
    assert progress(step=101, seconds=0, steps=100, minutes=None) == 1
    assert progress(step=1, seconds=61, steps=100, minutes=1) == 1


def test_the_learning_rate_rises_to_one_and_falls_to_its_last_value():
    factors = [cosine_with_warm_up(i / 100, warm_up=0.1, final=0.05) for i in range(101)]
    assert factors[0] == 0
    assert factors[10] == 1
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0.05)


def test_without_warm_up_it_begins_at_the_top():
    assert cosine_with_warm_up(0, warm_up=0, final=0) == 1
