"""The optimisers that teach a model: torch's own, and Muon with AdamW beside it as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from transformer_xl.training.settings import TrainingSettings

DECOUPLED_DECAY = 0.1


def optimizer_for(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over all parameters of a model, in which only the weight matrices decay.

    Raises:
        ValueError: Muon is asked for, and this torch has none.
    """
    matrices, others = _split(model.named_parameters(), _is_matrix)
    decay = settings.weight_decay
    if decay is None:
        decay = DECOUPLED_DECAY if settings.optimizer in ("adamw", "muon") else 0.0
    if settings.optimizer == "muon":
        hidden = {id(parameter) for parameter in hidden_matrices(model)}
        tables = [parameter for parameter in matrices if id(parameter) not in hidden]
        return MuonWithAdamW(
            [parameter for parameter in matrices if id(parameter) in hidden],
            _groups(tables, others, decay),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            betas=(settings.beta1, settings.beta2),
            weight_decay=decay,
        )
    groups = _groups(matrices, others, decay)
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=True)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=(settings.beta1, settings.beta2), fused=True)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of the linear layers inside a model's layers: what Muon is made for.

    Embeddings, the softmax and their projections, biases and norms are not among them (Jordan et al. 2024).
    """
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "layers" in name.split(".")
    ]


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices and AdamW for the rest, behind one `step`, one `state_dict` and one list of groups.

    Muon's steps are scaled as large as AdamW's, so that one learning rate serves both (Liu et al. 2025).

    Args:
        matrices: What Muon moves, each with two axes.
        others: Groups for AdamW, each with its own `weight_decay`.
        lr: Learning rate of all.
        momentum: Of Muon.
        betas: Of AdamW.
        weight_decay: Of Muon.

    Raises:
        ValueError: This torch has no Muon.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = DECOUPLED_DECAY,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"optimizer is 'muon', but torch {torch.__version__} has none: install torch 2.9 or later or take adamw"
            )
        muon = torch.optim.Muon(
            list(matrices), lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        adamw = torch.optim.AdamW(others, lr=lr, betas=betas, fused=True)
        self._parts = [(muon, slice(0, 1)), (adamw, slice(1, None))]
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, groups in self._parts:
            # Loading a state puts new objects in the place of these.
            part.state, part.param_groups = self.state, self.param_groups[groups]
            part.step()
        return loss


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2 and "bias" not in name


def _split(
    parameters: Iterable[tuple[str, nn.Parameter]], condition: Callable[[str, nn.Parameter], bool]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Those that meet a condition, and the others."""
    yes: list[nn.Parameter] = []
    no: list[nn.Parameter] = []
    for name, parameter in parameters:
        (yes if condition(name, parameter) else no).append(parameter)
    return yes, no


def _groups(decaying: list[nn.Parameter], others: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    return [{"params": decaying, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
