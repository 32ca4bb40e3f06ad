"""The Trainer of transformers with our models: memory along the streams, losses counted right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from transformer_xl.configuration import TransfoXLConfig
from transformer_xl.data.segments import NOT_COUNTED
from transformer_xl.evaluation import Protocol, evaluate
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.training.trainer import Lanes, MemoryTrainer

VOCABULARY = 20
IDS = np.random.default_rng(0).integers(0, VOCABULARY, 230).astype(np.uint8)


def tiny_model(**changes) -> TransfoXLLMHeadModel:
    fields = {
        "vocab_size": VOCABULARY, "cutoffs": [], "d_model": 8, "d_embed": 8, "n_head": 2, "d_head": 4, "d_inner": 8,
        "div_val": 1, "n_layer": 1, "mem_len": 12, "clamp_len": -1, "same_length": False, "dropout": 0.0,
        "initial_memory": "empty", "eos_token_id": None, "init_std": 0.3,
    }  # fmt: skip
    return TransfoXLLMHeadModel(TransfoXLConfig(**{**fields, **changes}))


def arguments(folder, **changes) -> TrainingArguments:
    usual = {
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 2, "num_train_epochs": 1, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "optim": "sgd", "learning_rate": 0.0,
        "prediction_loss_only": True, "logging_strategy": "no",
    }  # fmt: skip
    return TrainingArguments(str(folder), **{**usual, **changes})


def losses_of_training(trainer: Trainer) -> list[float]:
    """The loss of each step."""
    losses = []
    compute_loss = trainer.compute_loss

    def noted(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        if not isinstance(loss, tuple) and trainer.model.training:
            losses.append(loss.item())
        return loss

    trainer.compute_loss = noted
    trainer.train()
    return losses


def losses_by_hand(model: TransfoXLLMHeadModel, lanes: Lanes) -> list[float]:
    """The loss of each step of one epoch, with the memory carried along."""
    losses, mems = [], None
    for step in range(len(lanes) // lanes.num_lanes):
        rows = [lanes[step * lanes.num_lanes + lane] for lane in range(lanes.num_lanes)]
        inputs, targets = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "shift_labels"))
        with torch.no_grad():
            output = model(inputs, mems=mems, shift_labels=targets, use_cache=True)
        losses.append(output.loss.item())
        mems = output.mems
    return losses


def test_every_token_but_the_first_is_a_target_once_and_lanes_go_on():
    lanes = Lanes(IDS, 4, 16)
    streams = [[lanes[i] for i in range(lane, len(lanes), 4)] for lane in range(4)]
    targets = [torch.cat([each["shift_labels"] for each in stream]) for stream in streams]
    counted = torch.cat([stream[stream != NOT_COUNTED] for stream in targets])
    assert counted.tolist() == IDS[1:].tolist()


def test_the_memory_goes_from_step_to_step_and_is_empty_when_an_epoch_begins(tmp_path):
    model, lanes = tiny_model(), Lanes(IDS, 4, 16)
    expected = losses_by_hand(model.eval(), lanes)
    trainer = MemoryTrainer(model, arguments(tmp_path, num_train_epochs=2), train_dataset=lanes)
    assert losses_of_training(trainer) == pytest.approx(2 * expected, rel=1e-5)


def test_an_evaluation_counts_every_token_once_and_leaves_the_memory_of_training_alone(tmp_path):
    model, lanes = tiny_model(), Lanes(IDS, 4, 16)
    changes = {"eval_strategy": "steps", "eval_steps": 1}
    trainer = MemoryTrainer(model, arguments(tmp_path, **changes), train_dataset=lanes, eval_dataset=Lanes(IDS, 2, 10))
    assert losses_of_training(trainer) == pytest.approx(losses_by_hand(model.eval(), lanes), rel=1e-5)
    expected = evaluate(model, IDS, Protocol(10, 12, batch_size=2)).loss
    assert [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line] == pytest.approx(
        [expected] * 4, rel=1e-5
    )


def test_a_prediction_brings_the_scores_and_no_memories(tmp_path):
    trainer = MemoryTrainer(tiny_model(), arguments(tmp_path, prediction_loss_only=False))
    prediction = trainer.predict(Lanes(IDS[:41], 2, 10))
    assert prediction.predictions.shape == (4, 10, VOCABULARY)
    assert prediction.label_ids.shape == (4, 10)
    assert prediction.metrics["test_loss"] > 0


def test_label_smoothing_is_the_mean_of_both_losses(tmp_path):
    model, lanes = tiny_model(mem_len=0), Lanes(IDS[:65], 4, 16)
    rows = [lanes[i] for i in range(4)]
    inputs, targets = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "shift_labels"))
    scores = model.eval()(inputs).logits
    right = -scores.gather(-1, targets[..., None]).mean()
    expected = 0.9 * right - 0.1 * scores.mean()
    trainer = MemoryTrainer(model, arguments(tmp_path, label_smoothing_factor=0.1), train_dataset=lanes)
    assert losses_of_training(trainer) == pytest.approx([expected.item()], rel=1e-5)


def test_label_smoothing_of_the_plain_trainer_shifts_the_labels(tmp_path):
    model, ids = tiny_model(mem_len=0), torch.from_numpy(IDS[:32].astype(np.int64)).view(4, 8)
    scores = model.eval()(ids).logits[:, :-1]
    expected = -0.9 * scores.gather(-1, ids[:, 1:, None]).mean() - 0.1 * scores.mean()
    rows = [{"input_ids": row, "labels": row} for row in ids]
    trainer = Trainer(model, arguments(tmp_path, label_smoothing_factor=0.1), train_dataset=rows)
    assert losses_of_training(trainer) == pytest.approx([expected.item()], rel=1e-5)


def test_the_plain_trainer_evaluates_without_memories(tmp_path):
    ids = torch.from_numpy(IDS[:32].astype(np.int64)).view(4, 8)
    trainer = Trainer(tiny_model(), arguments(tmp_path, prediction_loss_only=False, label_names=["labels"]))
    prediction = trainer.predict([{"input_ids": row, "labels": row} for row in ids])
    assert prediction.metrics["test_loss"] > 0
    assert not any(getattr(each, "ndim", 0) == 3 and each.shape[0] == 12 for each in prediction.predictions)


def test_a_trained_model_still_returns_its_memory(tmp_path):
    model = tiny_model()
    MemoryTrainer(model, arguments(tmp_path), train_dataset=Lanes(IDS, 4, 16)).train()
    assert model(torch.zeros(1, 2, dtype=torch.long)).mems is not None


def test_gradients_are_accumulated_over_consecutive_segments(tmp_path):
    model, lanes = tiny_model(), Lanes(IDS, 4, 16)
    expected = losses_by_hand(model.eval(), lanes)
    trainer = MemoryTrainer(model, arguments(tmp_path, gradient_accumulation_steps=2), train_dataset=lanes)
    assert losses_of_training(trainer) == pytest.approx(expected, rel=1e-5)
    assert trainer.state.global_step == 2


def test_data_that_cannot_carry_a_memory_are_refused(tmp_path):
    trainer = MemoryTrainer(tiny_model(), arguments(tmp_path), train_dataset=[{"input_ids": torch.zeros(4)}])
    with pytest.raises(ValueError, match="of type list: give Lanes"):
        trainer.train()
    trainer = MemoryTrainer(tiny_model(), arguments(tmp_path), train_dataset=Lanes(IDS, 6, 16))
    with pytest.raises(ValueError, match="have 6 streams, but 1 processes with per_device_train_batch_size=4 read 4"):
        trainer.train()
    with pytest.raises(ValueError, match="per_device_eval_batch_size=2"):
        trainer.evaluate(Lanes(IDS, 6, 16))


PROGRAM = """
import sys
import torch
torch.manual_seed(0)
sys.path.insert(0, sys.argv[1])
import test_trainer as here

world = int(sys.argv[3])
model = here.tiny_model()
batch = {"per_device_train_batch_size": 4 // world, "per_device_eval_batch_size": 4 // world}
arguments = here.arguments(sys.argv[2], learning_rate=0.5, num_train_epochs=2, max_grad_norm=0.0, **batch)
lanes = [here.Lanes(here.IDS[:length], 4, 16) for length in (229, 201)]
trainer = here.MemoryTrainer(model, arguments, train_dataset=lanes[0], eval_dataset=lanes[1])
trainer.train()
loss = trainer.evaluate()["eval_loss"]
if trainer.is_world_process_zero():
    print("loss", loss)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    losses = []
    for world in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        arguments = [tmp_path / "program.py", Path(__file__).parent, tmp_path, world]
        command = [sys.executable, "-W", "ignore", *launch, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        losses += [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("loss ")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(losses) == 2
