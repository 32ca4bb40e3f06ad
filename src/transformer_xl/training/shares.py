"""What is shared out over the processes of a run, put together and shared out again: weights, optimiser, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from transformer_xl.modeling.memory import Memory


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is shared out over processes, put together on each of them; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(target: Tensor, source: Tensor) -> None:
    """Copies a whole tensor into one that may be shared out over processes."""
    if isinstance(target, DTensor):
        source = source.to(target.device)
        source = distribute_tensor(source, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(source)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model by name."""
    return {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}


def fill_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives a model the parameters that `whole_weights` returned.

    Raises:
        ValueError: They are those of another model.
    """
    named = dict(model.named_parameters())
    for name in named.keys() | weights.keys():
        if name not in named or name not in weights or weights[name].shape != named[name].shape:
            raise ValueError(
                f"the checkpoint holds another model ({name} has another shape): a run goes on with the model that it "
                "began with"
            )
    for name, parameter in named.items():
        fill(parameter, weights[name])


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimiser, its averages put together."""
    state = optimizer.state_dict()
    averages = {
        index: {name: whole(value) if isinstance(value, Tensor) else value for name, value in each.items()}
        for index, each in state["state"].items()
    }
    return {**state, "state": averages}


def fill_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Gives an optimiser the state that `whole_optimizer_state` returned.

    Raises:
        ValueError: It is that of another optimiser.
    """
    if len(state["param_groups"]) != len(optimizer.param_groups):
        raise ValueError("the checkpoint holds the state of another optimiser: a run goes on with the one it had")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    averages = {
        int(index): {name: _shared_out_like(parameters[int(index)], value) for name, value in each.items()}
        for index, each in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": averages})


def _shared_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """What an optimiser keeps of a parameter, shared out as that is."""
    if value.shape != parameter.shape:
        return value
    target = torch.empty_like(parameter, dtype=value.dtype)
    fill(target, value)
    return target


def joined_memory(parts: Sequence[Memory | None]) -> Memory:
    """The memory of all rows of a process, one tensor [M, B, D] for each layer; empty if there is none."""
    return [torch.cat(layers, dim=1) for layers in zip(*(part for part in parts if part is not None), strict=True)]


def parted_memory(processes: Sequence[Memory], number: int) -> list[Memory]:
    """The memory of the rows of all processes in so many parts of as many rows each; none if there is no memory."""
    layers = [torch.cat(layer, dim=1).chunk(number, dim=1) for layer in zip(*processes, strict=True)]
    return [list(part) for part in zip(*layers, strict=True)]
