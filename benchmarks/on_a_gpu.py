"""What only a GPU can show, in one command that may be stopped: throughput, and the recipes wikitext2 and ptb in full.

    python benchmarks/on_a_gpu.py OUT --wikitext-2 DIR --ptb DIR

It works for 25 minutes at most (`--minutes`), saves, and says what is left; the same command goes on from there. First
the tokens per second of training WikiText-103's base and large models in bfloat16, in NVIDIA's shapes and batch sizes,
and those of greedy writing and of scoring in float32 and bfloat16 at the published size; then the recipe `wikitext2`,
then `ptb`, each scored on its test text by the protocol that is printed with it. When all is done, the row goes to a
dated file in `results/`. `--toy` makes everything tiny, to see that it runs, on a CPU too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sizes import PUBLISHED, TINY

from transformer_xl.data.corpus import open_corpus
from transformer_xl.evaluation import Protocol, evaluate
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.reading import Reader
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.sessions import Sampling, Session
from transformer_xl.training.fresh_model import fresh_config
from transformer_xl.training.optimizers import optimizer_for
from transformer_xl.training.recipes import changed, wt103_base, wt103_large
from transformer_xl.training.run_folder import load_run
from transformer_xl.training.settings import RunSettings

RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STOPPED = 128 + signal.SIGTERM
WARM_UP_STEPS, MEASURED_STEPS = 5, 20
# The bars: what others reached with the same recipe.
RUNS = {
    "wikitext2": (Protocol(150, 150), "63.5 or lower"),
    "ptb": (Protocol(10, 0, extended_length=130, temperature=1.08), "55.4 or lower"),
}
# NVIDIA's wt103_base.yaml and wt103_large.yaml.
SHAPES = {
    "wt103-base, NVIDIA's shape": changed(
        wt103_base(), width=512, num_heads=8, head_width=64, inner_width=2048, memory_length=192, segment_length=192,
        batch_size=256,
    ),
    "wt103-large": changed(wt103_large(), batch_size=128),
}  # fmt: skip
TOY = {
    "num_layers": 1, "width": 64, "num_heads": 2, "head_width": 32, "inner_width": 16, "batch_size": 4,
    "segment_length": 8, "steps": 8, "warm_up_steps": 2, "evaluations": 1,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the runs; the same one to go on")
    parser.add_argument("--wikitext-2", type=Path, required=True, help="folder with the files of WikiText-2")
    parser.add_argument("--ptb", type=Path, required=True, help="folder with the files of Penn Treebank")
    parser.add_argument("--minutes", type=float, default=25.0, help="minutes that this call may take (25)")
    parser.add_argument("--toy", action="store_true", help="tiny models and few steps")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out / "report.json")
    for name, settings in SHAPES.items():
        run = changed(settings, **{**TOY, "memory_length": 8}) if options.toy else settings
        report.add(name, lambda run=run: throughput(run))
    report.add("inference", lambda: inference(TINY if options.toy else PUBLISHED))
    for name, data in (("wikitext2", options.wikitext_2), ("ptb", options.ptb)):
        if name not in report.rows and not train(name, data, options, deadline):
            print(f"{name} is not done yet: give the same command again to go on")
            return
        report.add(name, lambda name=name: score(name, options.out / name))
    report.keep(options.toy)


class Report:
    """What is done, in a file, so that nothing is done twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, name: str, work: Any) -> None:
        if name not in self.rows:
            self.rows[name] = work()
            self.path.write_text(json.dumps(self.rows, indent=2) + "\n")
        print(f"{name}: {json.dumps(self.rows[name])}", flush=True)

    def keep(self, toy: bool) -> None:
        now = datetime.datetime.now(datetime.UTC)
        name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
        versions = {each: version(each) for each in ("torch", "transformers", "accelerate")}
        row = {"benchmark": "on_a_gpu", "date": now.isoformat(timespec="seconds"), "device": name, "versions": versions}
        if not toy:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{now:%Y-%m-%d-%H%M%S}-on-a-gpu.json"
            path.write_text(json.dumps(row | self.rows, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(row | self.rows))


def train(name: str, data: Path, options: argparse.Namespace, deadline: float) -> bool:
    """Whether a recipe is trained to its end; if the time is up, it is saved."""
    changes = {"precision": "bf16" if DEVICE.type == "cuda" else "float32", **(TOY if options.toy else {})}
    assignments = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "transformer_xl", "train", str(options.out / name), "--resume"]
    with subprocess.Popen([*command, "--recipe", name, "--data", str(data), *assignments]) as process:
        try:
            code = process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
    if code not in (0, STOPPED):
        raise SystemExit(f"training {name} failed with exit code {code}")
    return code == 0


def score(name: str, folder: Path) -> dict[str, Any]:
    """The test perplexity of a trained recipe, and the protocol."""
    protocol, bar = RUNS[name]
    model, vocabulary = load_run(folder)
    corpus = open_corpus(folder / "corpus")
    assert corpus.test is not None
    protocol = replace(protocol, begin=vocabulary.line_end_id)
    found = evaluate(model.to(DEVICE), corpus.test, protocol, side_by_side=32 if protocol.memory_length else 1)
    return {"test perplexity": found.perplexity, "tokens": found.tokens, "protocol": str(protocol), "bar": bar}


@torch.no_grad()
def inference(size: dict[str, Any]) -> dict[str, Any]:
    """The tokens per second of greedy writing, and of scoring segments of 128 as NVIDIA does, by batch size."""
    rates: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = TransfoXLLMHeadModel(TransfoXLConfig(**size)).eval().to(DEVICE, dtype)
        for batch_size in (1, 8, 64):
            ids = torch.randint(size["vocab_size"], (batch_size, 64), device=DEVICE)
            writing = Session(model, batch_size).feed(ids).write(10**9, Sampling(temperature=0))
            rates[f"writing {dtype}, batch {batch_size}"] = batch_size * rate(partial(next, writing))
        for batch_size in (1, 32):
            reader, ids = Reader(model), torch.randint(size["vocab_size"], (batch_size, 129), device=DEVICE)
            scoring = partial(reader.losses, ids[:, :-1], ids[:, 1:])
            rates[f"scoring {dtype}, batch {batch_size}"] = batch_size * 128 * rate(scoring)
    return {"tokens_per_second": rates}


def rate(step: Callable[[], Any]) -> float:
    """How often a step runs in a second."""
    for _ in range(WARM_UP_STEPS):
        step()
    synchronize()
    began = time.perf_counter()
    for _ in range(MEASURED_STEPS):
        step()
    synchronize()
    return MEASURED_STEPS / (time.perf_counter() - began)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def throughput(run: RunSettings) -> dict[str, Any]:
    """The tokens per second of training steps, in as few micro-batches as fit into the memory."""
    for micro_batches in (1, 2, 4, 8, 16):
        try:
            return {**measured(run, micro_batches), "micro_batches": micro_batches}
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return {"tokens_per_second": None, "reason": "does not fit into the memory"}


def measured(run: RunSettings, micro_batches: int) -> dict[str, Any]:
    torch.manual_seed(1)
    batch_size, length = run.training.batch_size, run.training.segment_length
    model = TransfoXLLMHeadModel(fresh_config(run.model, 267_735, length)).to(DEVICE)
    optimizer = optimizer_for(model, run.training)
    rows = batch_size // micro_batches
    memories: list[Any] = [None] * micro_batches
    # Words as frequent as Zipf's law has them.
    ids = (267_735 ** torch.rand(batch_size, length + 1, device=DEVICE) - 1).long()
    seconds = []
    for _ in range(WARM_UP_STEPS + MEASURED_STEPS):
        began = time.perf_counter()
        for i, part in enumerate(ids.split(rows)):
            with torch.autocast(DEVICE.type, torch.bfloat16):
                output = model(part[:, :-1], mems=memories[i], shift_labels=part[:, 1:])
            (output.loss / micro_batches).backward()
            memories[i] = output.mems
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        synchronize()
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds[WARM_UP_STEPS:])
    peak = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else None
    return {
        "tokens_per_second": batch_size * length / median,
        "batch_size": batch_size,
        "length": length,
        "peak_GB": peak,
    }


if __name__ == "__main__":
    main()
