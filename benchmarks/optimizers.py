"""Muon against AdamW on the built-in corpus: after equal steps, and after equal minutes.

    python benchmarks/optimizers.py

Both train the default model from the same seed, at the same learning rate, with no other setting changed; losses are of
the held-out twentieth, in nats per character. The last line is JSON, which also goes to a dated file in `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import transformer_xl

RESULTS = Path(__file__).parent / "results"
OPTIMIZERS = ("adamw", "muon")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="steps of the first comparison (1000)")
    parser.add_argument("--minutes", type=float, default=0.5, help="minutes of the second comparison (0.5)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all runs (1)")
    options = parser.parse_args()
    rows = [
        {
            "optimizer": optimizer,
            "budget": budget,
            **trained(optimizer=optimizer, seed=options.seed, **{budget: amount}),
        }
        for budget, amount in (("steps", options.steps), ("minutes", options.minutes))
        for optimizer in OPTIMIZERS
    ]
    for row in rows:
        print(
            f"{row['optimizer']:8} equal {row['budget']:8} {row['loss']:.4f} nats, {row['steps']:,} steps, "
            f"{row['seconds']:.1f} s"
        )
    now = datetime.datetime.now(datetime.UTC)
    report = {
        "benchmark": "optimizers",
        "date": now.isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {processor()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")}
        | {"python": platform.python_version(), "transformer-xl": transformer_xl.__version__},
        "load": os.getloadavg(),
        "seed": options.seed,
        "rows": rows,
    }
    path = RESULTS / f"{now:%Y-%m-%d-%H%M%S}-optimizers.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


def trained(**changes: Any) -> dict[str, Any]:
    """The last validation loss of a run with these settings of training, and what it took."""
    from transformer_xl.training.loop import train
    from transformer_xl.training.run_folder import read_metrics
    from transformer_xl.training.settings import RunSettings, TextSettings, TrainingSettings

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        train(
            RunSettings(TextSettings("builtin:shakespeare"), training=TrainingSettings(evaluations=2, **changes)), out
        )
        last = [line for line in read_metrics(out) if "validation_loss" in line][-1]
    return {"loss": last["validation_loss"], "steps": last["step"], "seconds": last["seconds"]}


def processor() -> str:
    """The name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
