from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig


@pytest.fixture
def make_model() -> Callable[..., TransfoXLLMHeadModel]:
    def make(**overrides: Any) -> TransfoXLLMHeadModel:
        settings = {
            "vocab_size": 11, "cutoffs": [], "d_model": 16, "d_embed": 16, "n_head": 2, "d_head": 8, "d_inner": 32,
            "div_val": 1, "n_layer": 2, "mem_len": 8, "tgt_len": 8, "clamp_len": -1, "same_length": False,
            "initial_memory": "empty", "init_std": 0.3, "dropout": 0.5,
        }  # fmt: skip
        torch.manual_seed(0)
        return TransfoXLLMHeadModel(TransfoXLConfig(**settings | overrides))

    return make


@pytest.fixture
def model(make_model) -> TransfoXLLMHeadModel:
    return make_model()


@pytest.fixture
def ids() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 11, 60, dtype=np.uint8)
