"""Every figure of speed and memory, from one command: a table, and as last line the same as JSON.

    python benchmarks/run.py [--only decoding scoring ...] [--threads 2] [--runs 5]

Both sides of a comparison have the same weights and run in turns, each in a process of its own; what they give is
compared before a number is printed. The peer is transformers 4.37.2 (`peer_environment.py`). The table also goes to a
dated file in `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (2)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each implementation (5)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="the parts to run (all)")
    parser.add_argument("--peer", type=Path, help="Python that has transformers 4.37.2 (one that is set up here)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import decoding
    import growth
    import precision
    import scoring
    import sliding_window
    import training_step
    from comparison import Comparison
    from peer_environment import peer_python

    parts: dict[str, Callable[[Comparison], None]] = {
        "decoding": decoding.run,
        "decoding_batch": decoding.run_batch,
        "decoding_int8": decoding.run_int8,
        "tiny": decoding.run_tiny,
        "gpt2": decoding.run_gpt2,
        "scoring": scoring.run,
        "scoring_int8": scoring.run_int8,
        "precision": precision.run,
        "training": training_step.run,
        "sliding_window": sliding_window.run,
        "growth": growth.run,
    }
    unknown = set(options.only or ()) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    peer = (options.peer or peer_python()).absolute()
    comparison = Comparison(peer, options.threads, options.runs)
    load = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, load {load:.1f} before the start")
    for name in options.only or parts:
        parts[name](comparison)

    print_ratios(comparison.rows)
    now = datetime.datetime.now(datetime.UTC)
    result = {
        "benchmark": "run",
        "date": now.isoformat(timespec="seconds"),
        "parts": options.only or list(parts),
        "machine": f"{platform.machine()}, {processor()}, {os.cpu_count()} cores",
        "threads": options.threads,
        "load_before": load,
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        "rows": comparison.rows,
    }
    RESULTS.mkdir(exist_ok=True)
    name = "-".join(options.only or ["all"])
    (RESULTS / f"{now:%Y-%m-%d-%H%M%S}-{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def print_ratios(rows: list[dict[str, Any]]) -> None:
    """Prints, once more and in one place, every figure that is held to a bar."""
    print("\nfigures that are held to a bar")
    for row in rows:
        if row["bar"]:
            figures = {name: value for name, value in row.items() if isinstance(value, float)}
            words = ", ".join(f"{name.replace('_', ' ')} {figure:.3g}" for name, figure in figures.items())
            print(f"  {row['section'][:72]:72}  {row['what'][:32]:32}  {words:28}  [{row['bar']}]")


def processor() -> str:
    """The name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
