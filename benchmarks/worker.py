"""One side of a comparison in a process of its own: takes tasks as lines of JSON, answers each with a line.

Both sides run this file, the peer in its own environment; only what they do differently is written twice.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FROM_HERE = Path(__file__).resolve()


class Side:
    """A process that runs tasks for one implementation."""

    def __init__(self, name: str, python: str | Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TRUST_REMOTE_CODE": "True"}
        self.name = name
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", str(FROM_HERE), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip

    def ask(self, task: str, **arguments: Any) -> Any:
        """Return the answer to one task."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the {self.name} side ended during {task}")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Work:
    """What both sides do, by the name of the task."""

    mems: list[Tensor] | None

    def create(self, size: dict[str, Any], folder: str) -> None:
        """Make a model with random weights and leave it in a folder for both sides."""
        torch.manual_seed(0)
        self.model = self.model_class()(self.config_class()(**size))
        self.model.save_pretrained(folder, safe_serialization=True)

    def load(self, folder: str) -> None:
        self.model = self.model_class().from_pretrained(folder).eval()

    def model_class(self) -> Any:
        raise NotImplementedError

    def config_class(self) -> Any:
        raise NotImplementedError

    def forget_peak_memory(self) -> None:
        """Begin to look for the peak anew, without what loading has left behind (Linux with glibc)."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self.resident = memory_of_this_process("VmRSS")

    def peak_memory(self) -> dict[str, float]:
        """Return the most memory that the process held since then, and how much of it came since then, in GiB."""
        peak = memory_of_this_process("VmHWM")
        return {"all": peak, "working": peak - self.resident}

    def prompt(self, ids: list[list[int]]) -> None:
        """Read a prompt, to decode from."""
        raise NotImplementedError

    def decode(self, num_tokens: int) -> dict[str, Any]:
        """Go on greedily; return the seconds of a token and the tokens."""
        with torch.no_grad():
            began = time.perf_counter()
            tokens = [self.step().tolist() for _ in range(num_tokens)]
            seconds = (time.perf_counter() - began) / num_tokens
        return {"seconds": seconds, "tokens": tokens}

    def step(self) -> Tensor:
        raise NotImplementedError

    def begin_text(self, segment_length: int) -> None:
        """Forget what was read, and make ready for segments of this length."""
        raise NotImplementedError

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def score(self, ids: list[int], segment_length: int, left_out: int) -> dict[str, Any]:
        """Score a text in segments; return the seconds of each, and the nats of a token over what both sides score.

        The peer cannot score the last token of a segment, so that every `left_out`th token does not count.
        """
        tokens = torch.tensor([ids])
        nats, count, seconds = 0.0, 0, []
        self.begin_text(segment_length)
        with torch.no_grad():
            for start in range(0, len(ids) - 1, segment_length):
                piece = tokens[:, start : start + segment_length + 1]
                began = time.perf_counter()
                losses = self.losses(piece[:, :-1], piece[:, 1:])
                seconds.append(time.perf_counter() - began)
                counted = losses[:, [i for i in range(piece.shape[1] - 1) if (start + i + 1) % left_out]]
                nats, count = nats + counted.sum().item(), count + counted.numel()
        self.begin_text(segment_length)
        return {"seconds": seconds, "nats": nats / count}

    def train(self, ids: list[list[int]], targets: list[list[int]], dropout: bool) -> dict[str, Any]:
        """Forward and backward once; return the seconds, the loss, and the norm of each parameter's gradient."""
        self.model.train(dropout)
        inputs, labels = torch.tensor(ids), torch.tensor(targets)
        mems = self.training_memory(inputs)
        self.model.zero_grad(set_to_none=True)
        began = time.perf_counter()
        loss = self.training_loss(inputs, labels, mems)
        loss.backward()
        seconds = time.perf_counter() - began
        norms = {
            name: parameter.grad.norm().item()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        self.model.eval()
        return {"seconds": seconds, "loss": loss.item(), "norms": norms}

    def training_memory(self, inputs: Tensor) -> list[Tensor]:
        """Return a memory of noise, the same on both sides."""
        config = self.model.config
        generator = torch.Generator().manual_seed(0)
        shape = (config.mem_len, inputs.shape[0], config.d_model)
        return [torch.randn(shape, generator=generator) for _ in range(config.n_layer)]

    def training_loss(self, inputs: Tensor, labels: Tensor, mems: list[Tensor]) -> Tensor:
        raise NotImplementedError


def memory_of_this_process(field: str) -> float:
    """Return a field of the process's status in GiB (Linux)."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 2**20


class Ours(Work):
    def model_class(self) -> Any:
        from transformer_xl import TransfoXLLMHeadModel

        return TransfoXLLMHeadModel

    def config_class(self) -> Any:
        from transformer_xl import TransfoXLConfig

        return TransfoXLConfig

    def prompt(self, ids: list[list[int]]) -> None:
        from transformer_xl.sessions import Sampling, Session

        session = Session(self.model, len(ids)).feed(torch.tensor(ids))
        self.writing = session.write(10**9, Sampling(temperature=0))

    def step(self) -> Tensor:
        return next(self.writing)

    def begin_text(self, segment_length: int) -> None:
        from transformer_xl.modeling.reading import Reader

        with torch.no_grad():
            self.reader = Reader(self.model, segment_length)

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.reader.losses(inputs, targets)

    def training_loss(self, inputs: Tensor, labels: Tensor, mems: list[Tensor]) -> Tensor:
        loss: Tensor = self.model(inputs, mems=mems, labels=labels).loss
        return loss

    def quantize(self) -> None:
        from transformer_xl.quantization import quantize_weights

        self.reader = None
        self.model = quantize_weights(self.model)


class Peer(Work):
    def model_class(self) -> Any:
        from transformers import TransfoXLLMHeadModel

        return TransfoXLLMHeadModel

    def config_class(self) -> Any:
        from transformers import TransfoXLConfig

        return TransfoXLConfig

    @torch.no_grad()
    def prompt(self, ids: list[list[int]]) -> None:
        output = self.model(torch.tensor(ids))
        self.mems, self.newest = output.mems, output.logits[:, -1].argmax(-1)

    def step(self) -> Tensor:
        token = self.newest
        output = self.model(token[:, None], mems=self.mems)
        self.mems, self.newest = output.mems, output.logits[:, -1].argmax(-1)
        return token

    def begin_text(self, segment_length: int) -> None:
        self.mems = None

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        # Labels are shifted inside, so that the last target of a segment is never scored.
        output = self.model(inputs, labels=inputs, mems=self.mems)
        self.mems = output.mems
        losses: Tensor = output.losses
        return losses

    def training_loss(self, inputs: Tensor, labels: Tensor, mems: list[Tensor]) -> Tensor:
        loss: Tensor = self.model(inputs, mems=mems, labels=labels).loss
        return loss


def main() -> None:
    work = {"ours": Ours, "peer": Peer}[sys.argv[1]]()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        task = json.loads(line)
        answer = getattr(work, task.pop("task"))(**task)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
