"""How a text is scored: the numbers without which a score means nothing, and the paper's choices of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

Rule = Literal["sgd", "rms"]


@dataclass(frozen=True)
class DynamicEvaluation:
    """How a model learns from the test text: each segment is scored first and then learned from (Krause et al. 2018).

    After segment i with mean loss L, all weights w with trained values w0 become
    `w - learning_rate * gradient / scale + decay * strength * (w0 - w)`.

    learning_rate: size of the steps.
    decay: how much of the way back to its trained value each weight goes after every segment.
    rule: "sgd", where scale and strength are 1; or "rms", where scale is `epsilon` + the root of each gradient's mean
        square over a training text, and strength is that root divided by its mean over all weights (decay times
        strength at most 1).
    epsilon: what keeps the steps of "rms" finite.
    """

    learning_rate: float
    decay: float = 0.0
    rule: Rule = "sgd"
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule is {self.rule!r}, but may be one of {', '.join(get_args(Rule))}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay}, but must be from 0 to 1")
        for name in ("learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0 and finite")

    def __str__(self) -> str:
        epsilon = f", epsilon {self.epsilon:g}" if self.rule == "rms" else ""
        return f"{self.rule}, learning rate {self.learning_rate:g}, decay {self.decay:g}{epsilon}"


@dataclass(frozen=True)
class Protocol:
    """How a text is scored: a score means something only together with it.

    target_length: tokens that are read and predicted in one forward pass.
    memory_length: past tokens that are remembered from pass to pass, 0 for none.
    clamp_length: the distance from which on all tokens count as equally far, -1 for no such limit.
    same_length: whether every token sees equally many others, instead of all that the pass and the memory hold.
    batch_size: streams that the text is dealt out to; each begins without a past, so 1 is the exact score of a text.
    begin: the token that stands before the text, so that its first token is scored too; None for none. People take the
        line end of the vocabulary (`vocabulary.line_end_id`).
    dynamic: how the model learns from the text while it is scored; None for a model that stays as it is.
    extended_length: tokens before each pass that are read again with it, not from memory (the authors' `ext_len`).
    temperature: what the scores of all tokens are divided by before the softmax; above 1 the model is less sure.
    pieces: whether the text is sentences or documents, with `begin` before each: "kept", where one follows the other
        in the memory; "alone", where each begins without a past; None for one text. Evaluation finds it in the
        segments that it is given.
    """

    target_length: int = 128
    memory_length: int = 128
    clamp_length: int = -1
    same_length: bool = False
    batch_size: int = 1
    begin: int | None = None
    dynamic: DynamicEvaluation | None = None
    extended_length: int = 0
    temperature: float = 1.0
    pieces: Literal["kept", "alone"] | None = None

    def __post_init__(self) -> None:
        zeros = dict.fromkeys(("memory_length", "extended_length", "begin"), 0)
        limits = {"target_length": 1, "clamp_length": -1, "batch_size": 1, **zeros}
        for name, smallest in limits.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name} is {value}, but must be at least {smallest}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}, but must be above 0 and finite")

    def __str__(self) -> str:
        clamp = "no clamp" if self.clamp_length < 0 else f"clamp {self.clamp_length}"
        return f"target {self.target_length}, memory {self.memory_length}, {clamp}, {self.conditions}"

    @property
    def conditions(self) -> str:
        """All but the three lengths, in words."""
        text = "the text" if self.pieces is None else "each piece"
        return ", ".join(
            [
                *(["same length"] if self.same_length else []),
                *([f"{self.extended_length} read again"] if self.extended_length else []),
                f"batch {self.batch_size}",
                *(["memory reset before each piece"] if self.pieces == "alone" else []),
                f"first token of {text} not scored" if self.begin is None else f"token {self.begin} before {text}",
                *([f"temperature {self.temperature:g}"] if self.temperature != 1 else []),
                *([f"ADAPTING ON THE TEST TEXT ({self.dynamic})"] if self.dynamic else []),
            ]
        )


# The authors' scripts: {pytorch,tf}/**/{wt103,enwik8,text8,lm1b}*.sh, their evaluation of the test set.
PAPER_PROTOCOLS = {
    "wt103-base": Protocol(64, 640, 400, same_length=True),
    "wt103-large": Protocol(128, 1600, 1000, same_length=True),
    "enwik8-base": Protocol(80, 2100, 820, same_length=True),
    "enwik8-large": Protocol(128, 3800, 1000, same_length=True),
    "text8-base": Protocol(80, 2100, 820, same_length=True),
    "text8-large": Protocol(128, 3800, 1000, same_length=True),
    "lm1b": Protocol(32, 128, same_length=True),
}


def paper_protocol(name: str) -> Protocol:
    """The protocol by which the paper scored a data set with a model, such as "wt103-base".

    All read with `same_length`. The authors read several streams side by side; here it is one, which is exact.
    """
    if name not in PAPER_PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}: the paper's are {', '.join(PAPER_PROTOCOLS)}")
    return PAPER_PROTOCOLS[name]


def sweep(
    protocol: Protocol,
    target_lengths: Sequence[int] | None = None,
    memory_lengths: Sequence[int] | None = None,
    clamp_lengths: Sequence[int] | None = None,
) -> list[Protocol]:
    """The variants of a protocol with each combination of these lengths; where none is given, its own stays.

    >>> [str(each) for each in sweep(Protocol(64, 640, 400), memory_lengths=[0, 160])]
    ['target 64, memory 0, clamp 400, batch 1, first token of the text not scored', \
'target 64, memory 160, clamp 400, batch 1, first token of the text not scored']
    """
    combinations = product(
        target_lengths or [protocol.target_length],
        clamp_lengths or [protocol.clamp_length],
        memory_lengths or [protocol.memory_length],
    )
    return [
        replace(protocol, target_length=target, memory_length=memory, clamp_length=clamp)
        for target, clamp, memory in combinations
    ]
