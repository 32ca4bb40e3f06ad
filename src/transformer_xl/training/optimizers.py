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

    Each group has a `rate`: what its learning rate is as a multiple of that of the run.

    Raises:
        ValueError: Muon is asked for, and this torch has none.
    """
    decay = settings.weight_decay
    if decay is None:
        decay = DECOUPLED_DECAY if settings.optimizer in ("adamw", "muon") else 0.0
    hidden = {id(parameter) for parameter in hidden_matrices(model)} if settings.optimizer == "muon" else set()
    for_muon: list[Tensor] = []
    groups: dict[str, dict[str, Any]] = {
        "embeddings": {"params": [], "weight_decay": decay, "rate": settings.embedding_rate},
        "matrices": {"params": [], "weight_decay": decay, "rate": 1.0},
        "others": {"params": [], "weight_decay": 0.0, "rate": 1.0},
    }
    for name, parameter in model.named_parameters():
        if id(parameter) in hidden:
            for_muon.append(parameter)
        elif "emb_layers" in name.split("."):
            groups["embeddings"]["params"].append(parameter)
        else:
            is_matrix = parameter.dim() >= 2 and "bias" not in name
            groups["matrices" if is_matrix else "others"]["params"].append(parameter)
    rest = [group for group in groups.values() if group["params"]]
    rate, betas = settings.learning_rate, (settings.beta1, settings.beta2)
    if settings.optimizer == "muon":
        return MuonWithAdamW(for_muon, rest, rate, settings.momentum, betas, decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(rest, lr=rate, momentum=settings.momentum)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(rest, lr=rate)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(rest, lr=rate, betas=betas, fused=True)


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
            [{"params": list(matrices), "rate": 1.0}],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
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
