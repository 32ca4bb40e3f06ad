"""nanoGPT's published CPU setting and ours, one after the other: same text, same split, same threads, same seconds.

    git clone https://github.com/karpathy/nanoGPT
    python benchmarks/against_nanogpt.py --nanogpt nanoGPT --text input.txt

nanoGPT runs in a copy of its checkout with the CPU command of its README and prepares the text itself; ours then
trains for the seconds that its training took: the start of Python counts on neither side, evaluations on both. Each
final model scores the whole validation text: nanoGPT's in consecutive blocks of its context, and once more with each
token at the end of a full block (its best case, at 64 times the cost); ours in segments with memory. nanoGPT's own
estimate from random batches is given too. The last line is JSON, which also goes to a dated file in `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import transformer_xl

RESULTS = Path(__file__).parent / "results"
THREADS = 2
ENVIRONMENT = {"OMP_NUM_THREADS": str(THREADS)}
SPLIT = 0.9
NANOGPT_SETTING = [
    *("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1"),
    *("--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128"),
    *("--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]

# Its preparation imports `requests` to download the text, which is there already.
NANOGPT_PREPARE = """
import runpy, sys, types
sys.modules["requests"] = types.ModuleType("requests")
runpy.run_path("data/shakespeare_char/prepare.py")
"""

NANOGPT_SCORE = """
import json, sys
import numpy, torch
from model import GPT, GPTConfig
torch.set_num_threads(int(sys.argv[2]))
saved = torch.load(sys.argv[1] + "/ckpt.pt", map_location="cpu")
model = GPT(GPTConfig(**saved["model_args"]))
model.load_state_dict(saved["model"])
model.eval()
ids = torch.from_numpy(numpy.fromfile("data/shakespeare_char/val.bin", dtype=numpy.uint16).astype(numpy.int64))
block = model.config.block_size

@torch.no_grad()
def losses(inputs, targets):
    # Its forward gives the scores of all positions when it has targets.
    logits = model(inputs, targets.contiguous())[0]
    return torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")

in_blocks = [losses(ids[None, i : i + block][:, : len(ids) - 1 - i], ids[None, i + 1 : i + 1 + block])
             for i in range(0, len(ids) - 1, block)]
windows = ids.unfold(0, block + 1, 1)
sliding = [losses(windows[:1, :-1], windows[:1, 1:]).flatten()]
sliding += [losses(some[:, :-1], some[:, 1:])[:, -1] for some in windows[1:].split(256)]
print(json.dumps({
    "loss": torch.cat(in_blocks, dim=1).double().mean().item(),
    "loss_sliding": torch.cat(sliding).double().mean().item(),
    "tokens": len(ids) - 1,
    "steps": saved["iter_num"],
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="checkout of nanoGPT; nothing is written into it")
    parser.add_argument("--text", type=Path, required=True, help="the tinyshakespeare text, input.txt")
    parser.add_argument("--seed", type=int, default=1, help="seed of our run (1)")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        theirs = run_nanogpt(options.nanogpt, options.text, Path(folder))
        print(f"nanoGPT: {theirs}", flush=True)
        ours = run_ours(options.text, theirs["seconds"], options.seed, Path(folder))
        print(f"ours: {ours}", flush=True)
    report(theirs, ours, options)


def run_nanogpt(checkout: Path, text: Path, folder: Path) -> dict[str, Any]:
    """Trains nanoGPT, and scores its model after the last iteration."""
    copy = folder / "nanogpt"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "out*"))
    shutil.copyfile(text, copy / "data" / "shakespeare_char" / "input.txt")
    subprocess.run([sys.executable, "-c", NANOGPT_PREPARE], cwd=copy, check=True)
    # Without the last option it would keep the best of its noisy estimates rather than the final model.
    setting = [*NANOGPT_SETTING, f"--out_dir={folder / 'theirs'}", "--always_save_checkpoint=True"]
    command = [sys.executable, "-u", "-W", "ignore", "train.py", *setting]
    lines, began = [], math.nan
    with subprocess.Popen(command, cwd=copy, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        for line in training.stdout:
            began = time.perf_counter() if line.startswith("tokens per iteration") else began
            lines.append(line)
    seconds = time.perf_counter() - began
    estimates = re.findall(r"val loss ([\d.]+)", "".join(lines))
    score = [sys.executable, "-c", NANOGPT_SCORE, str(folder / "theirs"), str(THREADS)]
    scored = subprocess.run(score, cwd=copy, check=True, text=True, stdout=subprocess.PIPE)
    return {**json.loads(scored.stdout.splitlines()[-1]), "loss_own_estimate": float(estimates[-1]), "seconds": seconds}


def run_ours(text: Path, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Trains ours for so many seconds with its default settings, and scores the model that it leaves."""
    content = text.read_text(encoding="utf-8")
    border = int(len(content) * SPLIT)
    train, valid, out = folder / "train.txt", folder / "valid.txt", folder / "ours"
    train.write_text(content[:border], encoding="utf-8")
    valid.write_text(content[border:], encoding="utf-8")
    command = [*("-m", "transformer_xl", "train", "--train", train, "--valid", valid, out)]
    command += ["--minutes", str(seconds / 60), "--seed", str(seed)]
    subprocess.run([sys.executable, *map(str, command)], check=True)

    from transformer_xl.evaluation import Protocol, evaluate
    from transformer_xl.training.run_folder import load_run, read_metrics

    model, vocabulary = load_run(out)
    protocol = Protocol(model.config.tgt_len, model.config.mem_len)
    score = evaluate(model, vocabulary.encode(content[border:]), protocol)
    last = [line for line in read_metrics(out) if "validation_loss" in line][-1]
    return {
        "loss": score.loss,
        "loss_last_of_training": last["validation_loss"],
        "tokens": score.tokens,
        "steps": last["step"],
        "protocol": str(protocol),
        "seconds": last["seconds"],
    }


def report(theirs: dict[str, Any], ours: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints both sides and keeps the row."""
    for name, loss in (
        ("nanoGPT, consecutive blocks", theirs["loss"]),
        ("nanoGPT, own estimate", theirs["loss_own_estimate"]),
        ("nanoGPT, sliding window", theirs["loss_sliding"]),
        ("transformer-xl", ours["loss"]),
    ):
        print(f"{name:30} {loss:.4f} nats  {loss / math.log(2):.4f} bits per character")
    now = datetime.datetime.now(datetime.UTC)
    commit = ["git", "-C", str(options.nanogpt), "rev-parse", "HEAD"]
    row = {
        "benchmark": "against_nanogpt",
        "date": now.isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {processor()}, {THREADS} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")}
        | {"python": platform.python_version(), "transformer-xl": transformer_xl.__version__}
        | {"nanoGPT": subprocess.run(commit, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()},
        "environment": ENVIRONMENT,
        "load": os.getloadavg(),
        "seed": options.seed,
        "nanogpt": theirs,
        "ours": ours,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d-%H%M%S}-against-nanogpt.json"
    path.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(row))


def processor() -> str:
    """The name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
