"""A run learns what the authors' PyTorch code learns, step by step (files of oracles/write_original_training.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.data.segments import Segments
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.training.optimizers import optimizer_for
from transformer_xl.training.settings import TrainingSettings

from ..golden_files import golden_cases, read_golden_file

PREFIX = "original_training_"


@pytest.mark.parametrize("case", golden_cases(PREFIX))
def test_a_hundred_steps_have_the_losses_of_the_authors_code(case: str) -> None:
    golden = read_golden_file(PREFIX + case)
    training = golden.config.pop("training")
    model = TransfoXLLMHeadModel(TransfoXLConfig(**golden.config)).train()
    model.load_state_dict(golden.weights)
    rate = training["learning_rate"]
    optimizer = optimizer_for(model, TrainingSettings(optimizer="adam", beta2=0.999, learning_rate=rate))
    ids = golden.arrays["ids"].numpy().astype(np.uint16)
    segments = Segments(ids, training["batch_size"], training["length"])
    losses, mems = [], None
    for step in range(len(golden.arrays["losses"])):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / training["warm_up"])
        output = model(segments[step].inputs, mems=mems, shift_labels=segments[step].targets)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training["clip"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
        mems = output.mems
    torch.testing.assert_close(torch.tensor(losses), golden.arrays["losses"], rtol=1e-5, atol=0)
