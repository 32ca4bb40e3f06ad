from __future__ import annotations

import pytest
import torch

from transformer_xl.modeling.dropout import Dropout, LockedDropout, WordDropout


def test_numbers_are_dropped_while_training_only():
    module, x = Dropout(0.5), torch.ones(1000)
    assert 300 < (module(x) == 0).sum() < 700
    assert module.eval()(x) is x


def test_it_is_found_as_the_dropout_it_is():
    assert isinstance(Dropout(0.1), torch.nn.Dropout)


def test_locked_dropout_drops_the_same_numbers_at_all_positions_of_a_row_and_others_in_the_next():
    x = torch.ones(2, 5, 400)
    dropped = LockedDropout(0.5)(x)
    assert (dropped == dropped[:, :1]).all()
    assert not torch.equal(dropped[0], dropped[1])
    assert 0.35 < (dropped == 0).float().mean() < 0.65
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert LockedDropout(0.5).eval()(x) is x


def test_locked_dropout_takes_what_has_no_rows():
    dropped = LockedDropout(0.5)(torch.ones(5, 400))
    assert (dropped == dropped[:1]).all()


def test_word_dropout_drops_a_token_wherever_it_stands_and_scales_the_others():
    ids = torch.arange(200).repeat(2, 2)
    dropped = WordDropout(0.25)(torch.ones(2, 400, 3), ids, 200)
    assert torch.equal(dropped[0], dropped[1])
    assert torch.equal(dropped[:, :200], dropped[:, 200:])
    assert (dropped == dropped[..., :1]).all()
    assert 0.15 < (dropped == 0).float().mean() < 0.35
    assert dropped.max().item() == pytest.approx(4 / 3)
    embedded = torch.ones(2, 400, 3)
    assert WordDropout(0.25).eval()(embedded, ids, 200) is embedded
