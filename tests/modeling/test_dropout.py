from __future__ import annotations

import torch

from transformer_xl.modeling.dropout import Dropout


def test_numbers_are_dropped_while_training_only():
    module, x = Dropout(0.5), torch.ones(1000)
    assert 300 < (module(x) == 0).sum() < 700
    assert module.eval()(x) is x


def test_it_is_found_as_the_dropout_it_is():
    assert isinstance(Dropout(0.1), torch.nn.Dropout)
