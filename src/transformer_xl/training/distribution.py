"""The processes and devices of a run: what accelerate is asked for, and how processes decide alike."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DynamoBackend, TorchDynamoPlugin
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.training.settings import TrainingSettings
from transformer_xl.training.shares import fill_weights, whole_weights

STEPS_BETWEEN_AGREEMENTS = 5
PRECISION_NAMES = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


@contextmanager
def accelerated(settings: TrainingSettings, folder: Path) -> Iterator[Accelerator]:
    """The accelerator of a run, which writes its tracked metrics into `folder`.

    Raises:
        ValueError: The settings ask for what this machine, these processes or these libraries do not have.
    """
    trackers = _trackers(settings.tracker)
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("precision is fp16, which needs a CUDA GPU, and there is none: give bf16 or float32")
    if settings.shard and settings.precision == "fp16":
        raise ValueError("shard and precision fp16 do not go together: give precision bf16 or float32")
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # accelerate keeps the first precision of a process for ever, but the next run may ask for another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        # Without it, accelerate takes the processes of torchrun on a CPU for runs of their own.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=PRECISION_NAMES[settings.precision],
        dynamo_plugin=TorchDynamoPlugin(backend=DynamoBackend.INDUCTOR if settings.compile else DynamoBackend.NO),
        log_with=trackers or None,
        project_dir=folder if trackers else None,
    )
    _refuse_uneven_rows(settings, accelerator.num_processes)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(settings.deterministic or was_deterministic)
        yield accelerator
    finally:
        torch.use_deterministic_algorithms(was_deterministic)


def prepare(
    accelerator: Accelerator,
    model: TransfoXLLMHeadModel,
    settings: TrainingSettings,
    optimizer_for: Callable[[TransfoXLLMHeadModel, TrainingSettings], torch.optim.Optimizer],
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The model on its device and its optimiser, ready to learn in all processes.

    Each process has a copy of the model, or with `settings.shard` a share of it.
    """
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()  # type: ignore[no-untyped-call]
    if not settings.shard:
        module, optimizer = accelerator.prepare(model, optimizer_for(model, settings))
        return module, optimizer
    if not torch.distributed.is_initialized():
        raise ValueError("shard needs several processes to share the model out to: start them with torchrun")
    # accelerate shares out on GPUs only and from its own launcher's configuration; torch does so anywhere.
    model = model.to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in model.transformer.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # The losses are a view, which nothing changes in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    if settings.compile:
        model.compile()
    return model, accelerator.prepare_optimizer(optimizer_for(model, settings))


@contextmanager
def without_sync(accelerator: Accelerator, model: torch.nn.Module) -> Iterator[None]:
    """Keeps gradients in their process, for all but the last of several micro-batches."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)
    else:
        with accelerator.no_sync(model):
            yield


def whole_model(accelerator: Accelerator, model: torch.nn.Module) -> TransfoXLLMHeadModel:
    """The model as it is in one process: itself, or where it is shared out, a copy put together from all shares."""
    unwrapped = cast(TransfoXLLMHeadModel, accelerator.unwrap_model(model, keep_torch_compile=False))
    if not isinstance(unwrapped, FSDPModule):
        return unwrapped
    with torch.random.fork_rng():
        copy = TransfoXLLMHeadModel(unwrapped.config)
    fill_weights(copy, whole_weights(unwrapped))
    copy.to(accelerator.device)
    return copy


def end(accelerator: Accelerator) -> None:
    """Ends what a run tracks. Its processes part when their program ends, which may train again before."""
    for tracker in accelerator.trackers:
        tracker.finish()
    atexit.register(accelerator.state.destroy_process_group)


def agree(accelerator: Accelerator, signal_number: int, wishes: Sequence[float]) -> tuple[int, list[float]]:
    """A signal that any process got, or 0; and what the main process wishes, told to all of them."""
    if accelerator.num_processes == 1:
        return signal_number, list(wishes)
    mine = torch.tensor([[signal_number, *wishes]], dtype=torch.float64, device=accelerator.device)
    everybody = accelerator.gather(mine)
    return int(everybody[:, 0].max()), everybody[0, 1:].tolist()


def _trackers(names: str | None) -> list[str]:
    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    available = [str(each) for each in get_available_trackers()]
    for name in wanted:
        if name not in available:
            known = f"those installed are {', '.join(available)}" if available else "none is installed"
            raise ValueError(f"tracker names {name!r}, which accelerate cannot find here: {known}")
    return wanted


def _refuse_uneven_rows(settings: TrainingSettings, num_processes: int) -> None:
    parts = num_processes * settings.micro_batches
    if settings.batch_size % parts:
        raise ValueError(
            f"batch_size is {settings.batch_size}, which {num_processes} processes times {settings.micro_batches} "
            f"micro_batches cannot share evenly: give a multiple of {parts}"
        )
