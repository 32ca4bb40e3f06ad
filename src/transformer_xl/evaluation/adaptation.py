"""Dynamic evaluation: a model that learns from each segment after it was scored (Krause et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor

from transformer_xl.data.segments import Segment
from transformer_xl.evaluation.protocol import DynamicEvaluation
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.memory import reset


@contextmanager
def adapting_reader(
    model: TransfoXLLMHeadModel, dynamic: DynamicEvaluation, training: Iterable[Segment] | None
) -> Iterator[AdaptingReader]:
    """Yield a reader that changes the model while it reads, and then give the model its own weights again.

    Args:
        model: The model, without dropout.
        dynamic: How it learns.
        training: Segments of a training text, for the rule "rms".
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("no weight of the model takes a gradient: dynamic evaluation needs a model that can learn")
    roots = None
    if dynamic.rule == "rms":
        if training is None:
            raise ValueError("the rule 'rms' of dynamic evaluation needs training_text: give ids of the training text")
        roots = root_mean_squares(model, parameters, training)
    reader = AdaptingReader(model, parameters, dynamic, roots)
    try:
        yield reader
    finally:
        reader.restore()


class AdaptingReader:
    """What reads a text segment by segment with carried memory, and learns from each segment after scoring it.

    Args:
        model: The model.
        parameters: What of it learns.
        dynamic: How.
        roots: For the rule "rms", the root of the mean square of each parameter's gradient.
    """

    def __init__(
        self,
        model: TransfoXLLMHeadModel,
        parameters: Sequence[Tensor],
        dynamic: DynamicEvaluation,
        roots: Sequence[Tensor] | None,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.dynamic = dynamic
        self.trained = [parameter.detach().clone() for parameter in parameters]
        self.roots = roots
        if roots is not None:
            self.mean_root = sum(root.sum() for root in roots) / sum(root.numel() for root in roots)
        self.mems: list[Tensor] | None = None

    def losses(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Read one segment [B, T], learn from it, and return what each target cost before that, [B, T]."""
        losses, gradients, self.mems = losses_and_gradients(
            self.model, self.parameters, Segment(input_ids, targets), self.mems
        )
        with torch.no_grad():
            for i, gradient in enumerate(gradients):
                self._learn(i, gradient)
        return losses

    def reset(self, rows: Tensor) -> None:
        """Bring the chosen rows of the batch, boolean [B], back to the beginning of a text; what was learned stays."""
        if self.mems is not None:
            self.mems = reset(self.mems, rows)

    def restore(self) -> None:
        """Give the model the weights that it came with."""
        with torch.no_grad():
            for parameter, trained in zip(self.parameters, self.trained, strict=True):
                parameter.copy_(trained)

    def _learn(self, place: int, gradient: Tensor) -> None:
        parameter, trained = self.parameters[place], self.trained[place]
        step, pull = self.dynamic.learning_rate * gradient, trained - parameter
        if self.roots is None:
            pull *= self.dynamic.decay
        else:
            root = self.roots[place]
            step /= root + self.dynamic.epsilon
            pull *= (self.dynamic.decay * root / self.mean_root).clamp(max=1)
        parameter.add_(pull - step)


def root_mean_squares(
    model: TransfoXLLMHeadModel, parameters: Sequence[Tensor], segments: Iterable[Segment]
) -> list[Tensor]:
    """Return the root of the mean square of each parameter's gradient, over segments of a training text."""
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    mems, count = None, 0
    for segment in segments:
        _, gradients, mems = losses_and_gradients(model, parameters, segment.to(model.device), mems)
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        count += 1
    return [(square / count).sqrt() for square in squares]


def losses_and_gradients(
    model: TransfoXLLMHeadModel, parameters: Sequence[Tensor], segment: Segment, mems: list[Tensor] | None
) -> tuple[Tensor, Sequence[Tensor], list[Tensor] | None]:
    """Return the loss of each target [B, T], the gradients of their mean, and the memory for the next segment."""
    with torch.enable_grad():
        output = model(segment.inputs, mems=mems, shift_labels=segment.targets, return_dict=True, use_cache=True)
        gradients = torch.autograd.grad(output.loss, parameters, allow_unused=True, materialize_grads=True)
    return cast(Tensor, output.losses).detach(), gradients, output.mems
