"""A model at work on a text without end: read, ask, write, fork, save, and go on in another process."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.reading import Reader

FORMAT = "transformer-xl session 1"


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from what the model believes.

    Attributes:
        temperature: 0 always takes the likeliest token; smaller is more careful, 1 is what the model believes.
        top_k: Only the k likeliest tokens take part; 0 for all.
        top_p: Only the likeliest tokens that together reach this probability take part.
        never: Ids that are never written.

    Raises:
        ValueError: A number is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    never: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}, but must be a number from 0 on")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}, but must be at least 1, or 0 to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, but must be a probability above 0, up to 1")

    def draw(self, model: TransfoXLLMHeadModel, hidden: Tensor, generator: torch.Generator) -> Tensor:
        """Return one token for each hidden state: [B, D] -> [B].

        The bands of the adaptive softmax that cannot take part are not computed.
        """
        candidates = 1 if self.temperature == 0 else self.top_k
        if candidates:
            scores, ids = model.crit.top_k(hidden, min(candidates + len(self.never), model.crit.n_token))
        else:
            scores = model.crit.log_prob(hidden)
            ids = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        for token in self.never:
            scores = scores.masked_fill(ids == token, float("-inf"))
        if candidates and self.never:
            scores, order = scores.topk(min(candidates, scores.shape[1]), dim=-1)
            ids = ids.gather(-1, order)
        if self.temperature == 0:
            return ids[:, 0]
        warpers = LogitsProcessorList([TemperatureLogitsWarper(float(self.temperature))])
        if self.top_p < 1:
            warpers.append(TopPLogitsWarper(self.top_p))
        drawn = torch.multinomial(warpers(cast(torch.LongTensor, ids), scores).softmax(-1), 1, generator=generator)
        return ids.gather(-1, drawn).squeeze(-1)


class Session:
    """A batch of texts that a model reads and writes, with a past of constant size.

    Memory and time of a step do not depend on how much was read, `num_read` tokens, of which `newest` [B] are the last.
    The model is put into evaluation mode.

    Args:
        model: The model at work.
        batch_size: Number of texts B that go on side by side.
        seed: Number that makes what is drawn repeatable; None for a new one.

    Example:
        >>> session = Session(model, seed=1)
        >>> session.feed(prompt_ids)
        >>> for token in session.write(100, Sampling(temperature=0.8)):
        ...     print(token)
        >>> session.save("story.safetensors")
    """

    def __init__(self, model: TransfoXLLMHeadModel, batch_size: int = 1, seed: int | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        model.train(False)
        self.model = model
        self.batch_size = batch_size
        self.generator = torch.Generator(model.device)
        if seed is None:
            self.generator.seed()
        else:
            self.seed(seed)
        self.num_read = 0
        self.newest: Tensor | None = None
        self._reader = Reader(model)
        self._hidden: Tensor | None = None

    def seed(self, seed: int) -> None:
        """Make what is drawn from now on repeatable."""
        if seed < 0:
            raise ValueError(f"seed is {seed}, but must be at least 0")
        self.generator.manual_seed(seed)

    @torch.no_grad()
    def feed(self, ids: Tensor) -> Self:
        """Read on: token ids [B, N], or [N] for a single text, of any length; returns the session.

        Raises:
            ValueError: The ids are not those of this many texts.
        """
        for segment in self._checked(ids).split(self.model.longest_segment, dim=1):
            self._note(segment, self._reader.hidden_states(segment))
        return self

    @torch.no_grad()
    def score(self, ids: Tensor) -> Tensor:
        """Read on, and return the negative log-likelihood of each token in nats, in order: [B, N] -> [B, N].

        The first token is scored by what was read before; if that is nothing, its loss is NaN: nothing predicts it.
        """
        ids = self._checked(ids)
        losses = []
        for segment in ids.split(self.model.longest_segment, dim=1):
            hidden = self._reader.hidden_states(segment)
            before = hidden[:, :1] if self._hidden is None else self._hidden[:, None]
            predicting = torch.cat([before, hidden[:, :-1]], dim=1)
            loss = self.model.crit(predicting.flatten(0, 1), segment.flatten()).view(segment.shape)
            if self._hidden is None:
                loss[:, 0] = float("nan")
            losses.append(loss)
            self._note(segment, hidden)
        return torch.cat(losses, dim=1)

    @torch.no_grad()
    def log_probabilities(self) -> Tensor:
        """Return what the model believes of the next token: log-probabilities [B, V]."""
        return self.model.crit.log_prob(self._read_something())

    def write(self, num_tokens: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """Go on by `num_tokens` tokens: yield the ids [B] one after the other, each read as soon as it is drawn."""
        if num_tokens < 1:
            raise ValueError(f"num_tokens is {num_tokens}, but must be at least 1")
        self._read_something()
        return self._write(num_tokens, sampling or Sampling())

    def _write(self, num_tokens: int, sampling: Sampling) -> Iterator[Tensor]:
        for _ in range(num_tokens):
            with torch.inference_mode():
                drawn = sampling.draw(self.model, self._read_something(), self.generator)
                hidden = self._reader.hidden_states(drawn[:, None])
            token = drawn.clone()  # which training may use, unlike what was made in inference mode
            self._note(token[:, None], hidden)
            yield token

    def fork(self) -> Session:
        """Return a session that has read the same and goes its own way."""
        other = object.__new__(Session)
        other.model, other.batch_size = self.model, self.batch_size
        other.num_read, other.newest = self.num_read, self.newest
        other.generator = self.generator.clone_state()
        other._reader = self._reader.fork()
        other._hidden = self._hidden
        return other

    def reset(self, rows: Tensor) -> None:
        """Begin a new text in the chosen rows of the batch, boolean [B]; the other rows go on.

        Until something is fed, what the model believes of a new text's first token is NaN.
        """
        if rows.dtype != torch.bool or rows.shape != (self.batch_size,):
            raise ValueError(
                f"rows is {rows.dtype} of shape {tuple(rows.shape)}, but must be a boolean tensor of shape "
                f"({self.batch_size},): one for each text of the session"
            )
        if self._hidden is not None:
            rows = rows.to(self._hidden.device)
            self._reader.reset(rows)
            self._hidden = self._hidden.masked_fill(rows[:, None], float("nan"))

    def save(self, path: str | Path) -> None:
        """Write the session to one safetensors file; it appears when it is complete."""
        tensors = {f"past.{name}": tensor for name, tensor in self._reader.state().items()}
        tensors["generator"] = self.generator.get_state()
        if self._hidden is not None and self.newest is not None:
            tensors["hidden"], tensors["newest"] = self._hidden, self.newest
        about = {"batch_size": self.batch_size, "num_read": self.num_read, "model": fingerprint(self.model)}
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.unfinished")
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            unfinished,
            metadata={"format": FORMAT, "session": json.dumps(about)},
        )
        unfinished.replace(path)

    @classmethod
    def load(cls, model: TransfoXLLMHeadModel, path: str | Path) -> Session:
        """Return the session that `save` wrote, to go on with equal numbers.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no session, or one of another model.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no session at {path}: feed a session and save it first")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file ({error}): save the session again") from None
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is a safetensors file, but no session: give a file that Session.save wrote")
        about = json.loads(metadata["session"])
        if about["model"] != fingerprint(model):
            raise ValueError(f"the session {path} belongs to another model: load it with the model that wrote it")
        session = cls(model, about["batch_size"])
        session.num_read = about["num_read"]
        session.generator.set_state(tensors.pop("generator"))
        if "hidden" in tensors:
            session._hidden = tensors.pop("hidden").to(model.device)
            session.newest = tensors.pop("newest").to(model.device)
        past = {name.removeprefix("past."): tensor.to(model.device) for name, tensor in tensors.items()}
        session._reader.load_state(past)
        return session

    def _note(self, segment: Tensor, hidden: Tensor) -> None:
        self.newest, self._hidden = segment[:, -1], hidden[:, -1]
        self.num_read += segment.shape[1]

    def _read_something(self) -> Tensor:
        if self._hidden is None:
            raise ValueError("this session has read nothing that could be gone on from: feed it at least one token")
        return self._hidden

    def _checked(self, ids: Tensor) -> Tensor:
        ids = ids[None] if ids.dim() == 1 else ids
        if ids.dim() != 2 or ids.shape[0] != self.batch_size or ids.shape[1] == 0:
            raise ValueError(
                f"ids has the shape {tuple(ids.shape)}, but must be ({self.batch_size}, N) with N at least 1: one row "
                "of token ids for each text of the session"
            )
        return ids.to(self.model.device)


def fingerprint(model: TransfoXLLMHeadModel) -> str:
    """Return a digest of what a model's numbers depend on.

    It covers the lengths of memory and clamp, and of each weight the name, shape, type and the first and last numbers.
    """
    transformer = model.transformer
    lengths = (transformer.mem_len, transformer.clamp_len, transformer.same_length, model.config.initial_memory)
    digest = hashlib.sha256(repr(lengths).encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        edges = torch.cat([flat[:256], flat[-256:]]).float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(edges.numpy().tobytes())
    return digest.hexdigest()
