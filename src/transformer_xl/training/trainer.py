"""The Trainer of transformers with memory: streams of a text read side by side, the memory carried along each."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from transformer_xl.data.segments import NOT_COUNTED, Segment, Segments
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.text.vocabulary import Ids


class Lanes(Dataset[dict[str, Tensor]]):
    """A text as the segments of B streams, one after the other: the data set of a `MemoryTrainer`.

    Example `i` is the next segment of stream `i % B`, so that batches of B examples in order, or of B / N in each of N
    processes, go on where the batch before stopped. Every token of the text but the first is a target once.

    Args:
        ids: The text, N token ids.
        num_lanes: Number of streams B: the batch size of one process times the number of processes.
        segment_length: Number of tokens T that a stream advances in one step.
    """

    def __init__(self, ids: Ids, num_lanes: int, segment_length: int) -> None:
        self.num_lanes = num_lanes
        self._segments = Segments(ids, num_lanes, segment_length)
        self._last: tuple[int, Segment] | None = None

    def __len__(self) -> int:
        return len(self._segments) * self.num_lanes

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        step, lane = divmod(index, self.num_lanes)
        if self._last is None or self._last[0] != step:
            self._last = step, self._segments[step]
        segment = self._last[1]
        return {"input_ids": segment.inputs[lane], "shift_labels": segment.targets[lane]}


class MemoryTrainer(Trainer):
    """`Trainer` for `TransfoXLLMHeadModel` on `Lanes`: the memory of one step is what the next one goes on from.

    The memory is empty at the beginning of each epoch. An evaluation has a memory of its own, leaves that of training
    alone, gathers no memories, and counts every token once. `label_smoothing_factor` means what it means elsewhere.
    Gradient accumulation reads consecutive segments. A checkpoint of `Trainer` holds no memory: a run that is resumed
    begins with an empty one (`transformer-xl train --resume` restores it).

    Args:
        args: What `Trainer` takes, and the others too.

    Raises:
        ValueError: The data are no `Lanes`, or have another number of streams than the processes read; or several GPUs
            are driven by one process.

    Example:
        >>> args = TrainingArguments("OUT", per_device_train_batch_size=8, per_device_eval_batch_size=8)
        >>> trainer = MemoryTrainer(model, args, train_dataset=Lanes(ids, 8, 64), eval_dataset=Lanes(more_ids, 8, 64))
        >>> trainer.train()
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"one process drives {self.args.n_gpu} GPUs, which would share one memory: start one process for each "
                f"with torchrun --nproc-per-node {self.args.n_gpu}, or choose one with CUDA_VISIBLE_DEVICES"
            )
        # Trainer switches it off, and a model is saved with what it was trained with.
        cast(TransfoXLLMHeadModel, self.model).config.use_cache = True
        self.memory: list[Tensor] | None = None
        self.evaluation_memory: list[Tensor] | None = None
        self.add_callback(_BeginsEpochsWithoutMemory(self))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of one segment, which is read with the memory of the one before and leaves its own."""
        smoother = self.label_smoother if model.training else None
        asked = {"logits_to_keep": 0} if smoother is not None or return_outputs else {}
        mems = self.memory if model.training else self.evaluation_memory
        output = model(**inputs, mems=mems, use_cache=True, return_dict=True, **asked)
        if model.training:
            self.memory = output.mems
        else:
            self.evaluation_memory = output.mems
        loss = output.loss
        if smoother is not None:
            loss = smoother({"logits": output.prediction_scores}, inputs["shift_labels"])
        return (loss, output) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate from an empty memory; the loss is the mean over all tokens, however long the segments are."""
        self.evaluation_memory = None
        self._nats = torch.zeros((), dtype=torch.float64, device=self.args.device)
        self._num_tokens = torch.zeros((), dtype=torch.float64, device=self.args.device)
        output = super().evaluation_loop(*args, **kwargs)
        nats, num_tokens = self.accelerator.reduce(torch.stack([self._nats, self._num_tokens]), reduction="sum")
        prefix = kwargs.get("metric_key_prefix", "eval")
        assert output.metrics is not None
        output.metrics[f"{prefix}_loss"] = (nats / num_tokens).item()
        self.evaluation_memory = None
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the loss of one segment, and its log-probabilities and targets if they are asked for."""
        inputs = self._prepare_inputs(inputs)
        targets = inputs["shift_labels"]
        with torch.no_grad():
            returned = self.compute_loss(model, inputs, return_outputs=not prediction_loss_only)
        loss = returned if prediction_loss_only else returned[0]
        num_tokens = targets.ne(NOT_COUNTED).sum()
        self._nats += loss * num_tokens
        self._num_tokens += num_tokens
        if prediction_loss_only:
            return loss, None, None
        return loss, returned[1].prediction_scores, targets

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return _in_order(self.train_dataset if train_dataset is None else train_dataset, self._lanes(training=True))

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> Sampler[int]:
        return _in_order(eval_dataset, self._lanes(training=False))

    def _lanes(self, training: bool) -> tuple[str, int, int]:
        """The name and value of the batch size of one process, and the number of processes."""
        name = "per_device_train_batch_size" if training else "per_device_eval_batch_size"
        return name, getattr(self.args, name), self.args.world_size


class _BeginsEpochsWithoutMemory(TrainerCallback):
    def __init__(self, trainer: MemoryTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.memory = None


def _in_order(dataset: Dataset[Any] | None, lanes: tuple[str, int, int]) -> Sampler[int]:
    name, batch_size, num_processes = lanes
    if not isinstance(dataset, Lanes):
        raise ValueError(f"the data are of type {type(dataset).__name__}: give Lanes(ids, num_lanes, segment_length)")
    if dataset.num_lanes != batch_size * num_processes:
        raise ValueError(
            f"the data have {dataset.num_lanes} streams, but {num_processes} processes with {name}={batch_size} read "
            f"{batch_size * num_processes} of them at once: give as many as are read"
        )
    return SequentialSampler(dataset)
