"""How far back models look to good effect: the relative effective context length (Dai et al. 2019, appendix C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from transformer_xl.data.segments import NOT_COUNTED
from transformer_xl.evaluation.measurement import reading_by
from transformer_xl.evaluation.protocol import Protocol
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.reading import Reader
from transformer_xl.text.vocabulary import Ids

Losses = npt.NDArray[np.floating[Any]]
LossesByContext = Mapping[int, Losses]


def context_losses(
    model: TransfoXLLMHeadModel,
    ids: Ids,
    context_lengths: Sequence[int],
    positions: Sequence[int] | npt.NDArray[np.integer[Any]],
    protocol: Protocol,
) -> dict[int, npt.NDArray[np.float32]]:
    """Return what each chosen token of a text costs when exactly so many tokens before it are known, in nats [P].

    For every length and position the model begins anew and reads just these tokens, so this is for samples of
    positions: a thousand of them and ten lengths up to 1,000 are five million tokens to read.

    Args:
        model: The model.
        ids: The text [N].
        context_lengths: How many tokens are known.
        positions: Places [P] of the tokens to predict, each with the longest context before it.
        protocol: How the tokens are read: with a memory of the longest context or more, the model may attend to all.
            `batch_size` positions are read side by side, which changes nothing but the speed. Nothing stands before a
            context.

    Raises:
        ValueError: A length is below 1, or a position has too little before it.
    """
    places = np.asarray(positions, dtype=np.int64)
    longest, shortest = max(context_lengths, default=0), min(context_lengths, default=0)
    if shortest < 1:
        raise ValueError(f"context_lengths is {list(context_lengths)}, but must be lengths of at least 1")
    if not len(places) or places.min() < longest or places.max() >= len(ids):
        raise ValueError(
            f"positions must lie from {longest:,}, the longest context, to {len(ids) - 1:,}, the last token of the text"
        )
    with reading_by(protocol, model), torch.no_grad():
        return {
            length: np.concatenate(
                [
                    _losses_after(model, ids, places[start : start + protocol.batch_size], length, protocol)
                    for start in range(0, len(places), protocol.batch_size)
                ]
            )
            for length in context_lengths
        }


def _losses_after(
    model: TransfoXLLMHeadModel, ids: Ids, places: npt.NDArray[np.int64], length: int, protocol: Protocol
) -> npt.NDArray[np.float32]:
    windows = torch.from_numpy(ids[places[:, None] + np.arange(-length, 1)].astype(np.int64)).to(model.device)
    inputs, targets = windows[:, :-1], windows[:, 1:].clone()
    targets[:, :-1] = NOT_COUNTED
    reader = Reader(model)
    for segment, labels in zip(
        inputs.split(protocol.target_length, dim=1), targets.split(protocol.target_length, dim=1), strict=True
    ):
        losses = reader.losses(segment, labels)
    return losses[:, -1].float().cpu().numpy()


def relative_effective_context_lengths(
    losses: Mapping[str, LossesByContext], hardest: float = 1.0, threshold: float = 0.01
) -> dict[str, int]:
    """Return up to which length of context each model of a group gains from more: its RECL.

    The definition of appendix C, with l(m, c, t) for what model m pays in nats for the token at t after c tokens:

        baseline     b(c, t) = min over the models m of l(m, c, t)
        positions    T(c) = the share r of all t where b(c, t) is largest
        loss         f(m, c, c') = mean over t in T(c) of min(b(c, t), l(m, c', t))
        gain         g(m, c, c') = 1 - exp(f(m, c, c')) / exp(f(m, c, c)), which is `relative_gain`
        result       the first c, from the shortest on, for which g(m, c, c') < 0.01, where c' is the next length

    The longest length means that the model still gained there: look further.

    Args:
        losses: For each model by name, the loss in nats of the same positions [P] at each length of context, such as
            `context_losses` returns. The lengths are the steps of the search; the paper's are 100 apart.
        hardest: The share r of positions that is looked at: those that are hardest with the shorter context.
        threshold: The smallest gain that counts.

    Raises:
        ValueError: The models were not asked for the same positions and lengths, or a number is out of range.

    Example:
        >>> losses = {name: context_losses(model, ids, range(100, 1001, 100), positions, protocol) for ...}
        >>> relative_effective_context_lengths(losses, hardest=0.1)
        {'recurrent': 900, 'vanilla': 128}
    """
    _check(losses, hardest)
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}, but must be above 0")
    lengths = sorted(next(iter(losses.values())))
    return {
        name: next(
            (
                shorter
                for shorter, longer in pairwise(lengths)
                if relative_gain(losses, name, shorter, longer, hardest) < threshold
            ),
            lengths[-1],
        )
        for name in losses
    }


def relative_gain(
    losses: Mapping[str, LossesByContext], name: str, shorter: int, longer: int, hardest: float = 1.0
) -> float:
    """Return by which share a model's longer context lowers the perplexity that is the best with the shorter one.

    The baseline of a position is the lowest loss of any model of the group with the shorter context. A loss of the
    model with the longer context counts where it is lower, the baseline elsewhere.

    Args:
        losses: As `relative_effective_context_lengths` takes them.
        name: The model.
        shorter: Length of the context of the baseline.
        longer: Length of the context of the model.
        hardest: The share r of positions that is looked at: those with the highest baselines.
    """
    _check(losses, hardest)
    baseline = np.min([by_context[shorter] for by_context in losses.values()], axis=0).astype(np.float64)
    num_hard = max(1, round(hardest * len(baseline)))
    hard = np.argsort(-baseline, kind="stable")[:num_hard]
    reached = np.minimum(baseline, losses[name][longer])
    return float(-np.expm1(reached[hard].mean() - baseline[hard].mean()))


def _check(losses: Mapping[str, LossesByContext], hardest: float) -> None:
    if not 0 < hardest <= 1:
        raise ValueError(f"hardest is {hardest}, but must be above 0 and at most 1")
    asked = {name: sorted(by_context) for name, by_context in losses.items()}
    if (
        not asked
        or min(map(len, asked.values())) < 2
        or any(each != next(iter(asked.values())) for each in asked.values())
    ):
        raise ValueError(f"all models of a group need the same two or more lengths of context, but these have {asked}")
    shapes = {np.shape(each) for by_context in losses.values() for each in by_context.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        raise ValueError(f"all losses must be of the same positions [P], but their shapes are {sorted(shapes)}")
