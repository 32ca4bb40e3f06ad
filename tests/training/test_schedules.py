from __future__ import annotations

import json
import math

import pytest
import torch

from transformer_xl.training.schedules import Schedule, progress, schedule_for
from transformer_xl.training.settings import SCHEDULES, TrainingSettings


def factors(schedule, steps=100):
    return [schedule.factor(step / steps, step) for step in range(steps + 1)]


def torch_factors(make, steps=100):
    """What a scheduler of torch makes of a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_progress_counts_steps_unless_there_are_minutes():
    assert progress(step=25, seconds=1e9, steps=100, minutes=None) == 0.25
    assert progress(step=25, seconds=90, steps=1, minutes=3) == 0.5


def test_progress_ends_at_one():
    assert progress(step=101, seconds=0, steps=100, minutes=None) == 1
    assert progress(step=1, seconds=61, steps=100, minutes=1) == 1


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_rises_in_a_line_to_one_and_never_again(kind):
    found = factors(Schedule(kind, warm_up=0.1, final=0.05))
    assert found[:11] == pytest.approx([step / 10 for step in range(11)])
    assert found[10:] == sorted(found[10:], reverse=True)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_without_warm_up_it_begins_at_the_top(kind):
    assert Schedule(kind).factor(0.0, 0) == 1


def test_cosine_is_torchs():
    expected = torch_factors(lambda each: torch.optim.lr_scheduler.CosineAnnealingLR(each, T_max=100, eta_min=0.2))
    assert factors(Schedule("cosine", final=0.2)) == pytest.approx(expected)


def test_linear_is_torchs():
    expected = torch_factors(lambda each: torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.2, total_iters=100))
    assert factors(Schedule("linear", final=0.2)) == pytest.approx(expected)


def test_constant_stays_at_one():
    assert set(factors(Schedule("constant", final=0.2))) == {1.0}


def test_inverse_sqrt_is_the_root_of_the_warm_up_over_the_step():
    found = factors(Schedule("inverse_sqrt", warm_up=0.04))
    assert found[4:] == pytest.approx([math.sqrt(4 / step) for step in range(4, 101)])
    without = factors(Schedule("inverse_sqrt"))
    assert without == pytest.approx([math.sqrt(1 / (step + 1)) for step in range(101)])
    assert min(factors(Schedule("inverse_sqrt", final=0.3))) == 0.3


def test_plateau_is_torchs():
    losses = [3.0, 2.0, 2.0, 1.99999, 1.5, 1.6, 1.7, 1.8, 1.4, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]
    for patience in (0, 1, 2):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=patience, min_lr=0.02)
        schedule = Schedule("plateau", final=0.02, plateau_patience=patience, plateau_factor=0.3)
        for loss in losses:
            schedule.observe(loss)
            scheduler.step(loss)
            assert schedule.factor(0.5) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        assert schedule.factor(0.5) < 1


@pytest.mark.parametrize("losses", [[], [3.0], [3.0, 3.1, 3.2, 2.9, 3.0]])
def test_a_state_in_json_goes_on_where_it_was(losses):
    one, two = (Schedule("plateau", plateau_patience=1) for _ in range(2))
    for loss in losses:
        one.observe(loss)
    two.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    assert two == one


def test_after_its_end_the_rate_stays_at_a_share_of_the_last():
    schedule = Schedule("cosine", warm_up=0.1, final=0.2, end=0.5, tail=0.5)
    assert schedule.factor(0.5) == pytest.approx(0.2)
    assert schedule.factor(0.51) == schedule.factor(1.0) == pytest.approx(0.1)
    assert schedule.factor(0.3) == pytest.approx(0.6)


def test_settings_give_the_warm_up_as_a_share_or_in_steps():
    assert schedule_for(TrainingSettings(steps=200, warm_up=0.25)).warm_up == 0.25
    assert schedule_for(TrainingSettings(steps=200, warm_up_steps=10)).warm_up == 0.05
    assert schedule_for(TrainingSettings(steps=200, warm_up_steps=0)).factor(0.0) == 1


def test_the_mean_is_taken_at_a_share_of_the_last_rate_of_the_schedule():
    schedule = schedule_for(TrainingSettings(averaging="mean", averaging_start=0.6, averaging_learning_rate=0.5))
    assert schedule.factor(0.6) == pytest.approx(0.05)
    assert schedule.factor(0.61) == schedule.factor(1.0) == pytest.approx(0.025)
    assert schedule_for(TrainingSettings(averaging="exponential", averaging_start=0.6)).factor(0.6) > 0.1


def test_a_mean_that_begins_in_the_warm_up_is_refused():
    with pytest.raises(ValueError, match=r"averaging_start is 0\.1, but the mean must begin after .* lasts 0\.2 of"):
        TrainingSettings(averaging="mean", averaging_start=0.1, steps=100, warm_up_steps=20)


def test_a_warm_up_in_steps_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="warm_up_steps is 10, but the run lasts minutes"):
        TrainingSettings(minutes=1, warm_up_steps=10)
    with pytest.raises(ValueError, match="warm_up_steps is 4,000, but must be below the 4,000 steps"):
        TrainingSettings(warm_up_steps=4000)
