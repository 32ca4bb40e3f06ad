"""The authors' PyTorch code and ours, on the same text with the same model, batch, optimiser and first weights.

    git clone https://github.com/kimiyoung/transformer-xl
    python benchmarks/against_authors.py --authors transformer-xl --enwik8 enwik8.gz --seconds 100
    python benchmarks/against_authors.py --authors transformer-xl --wikitext-2 wikitext-2 --seconds 100

Each side is a process of its own, which trains for so many seconds without evaluating. Theirs is their model, their
iterator and the step of their train.py; ours is our model, our segments and the step of our training loop. Both begin
with the same weights, read the same ids in the same order, and step Adam with the same rate. Without dropout, their
losses must then be the same at every step, but for rounding, which grows with the steps. The mean over the last half of
the steps that both made is what is compared, in units of its noise. Models are smaller than the paper's, so that
a budget of minutes shows something. The last line is JSON, which also goes to a dated file in `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = 2
SHAPES: dict[str, dict[str, Any]] = {
    "enwik8": {
        "n_layer": 6, "d_model": 256, "n_head": 8, "d_head": 32, "d_inner": 1024, "cutoffs": [], "length": 128,
        "batch_size": 8, "learning_rate": 5e-4, "warm_up": 50,
    },
    "wikitext-2": {
        "n_layer": 4, "d_model": 200, "n_head": 5, "d_head": 40, "d_inner": 512, "cutoffs": [2000, 10000],
        "length": 70, "batch_size": 8, "learning_rate": 5e-4, "warm_up": 50,
    },
}  # fmt: skip
CLIP = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, help="checkout of the authors' repository; left alone")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--enwik8", type=Path, help="the file enwik8 or enwik8.gz")
    text.add_argument("--wikitext-2", type=Path, help="folder with the training text of WikiText-2, .gz or not")
    parser.add_argument(
        "--megabytes", type=float, default=8.0, help="megabytes of enwik8 to read from its beginning (8)"
    )
    parser.add_argument("--seconds", type=float, default=100.0, help="seconds of training on each side (100)")
    parser.add_argument("--side", choices=("theirs", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        work(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(options, Path(folder))
        sides = {}
        for side in ("theirs", "ours"):
            command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--side", side, "--folder", folder]
            done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment())
            sides[side] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{side}: {len(sides[side]['losses'])} steps, {sides[side]['tokens_per_second']:.0f} tokens/s",
                flush=True,
            )
        report(options, sides, json.loads(Path(folder, "text.json").read_text()))


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS)}


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Writes the ids that both sides read; symbols are numbered by frequency, as both libraries do."""
    import torch

    if options.enwik8:
        symbols: list[Any] = list(content_of(options.enwik8)[: int(options.megabytes * 1e6)])
        name = "enwik8"
    else:
        symbols, name = wikitext_words(options.wikitext_2), "wikitext-2"
    # One token more than whole lanes: so the lanes of both sides begin at the same places.
    symbols = symbols[: (len(symbols) - 1) // SHAPES[name]["batch_size"] * SHAPES[name]["batch_size"] + 1]
    numbers = {symbol: i for i, (symbol, _) in enumerate(Counter(symbols).most_common())}
    torch.save(torch.tensor([numbers[symbol] for symbol in symbols]), folder / "ids.pt")
    facts = {"text": name, "tokens": len(symbols), "vocabulary": len(numbers), **SHAPES[name]}
    (folder / "text.json").write_text(json.dumps(facts))


def wikitext_words(folder: Path) -> list[str]:
    path = next(path for path in sorted(folder.rglob("*train*")) if path.is_file())
    return content_of(path).decode("utf-8").replace("\n", " <eos> ").split()


def content_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def work(options: argparse.Namespace) -> None:
    """Trains one side, and prints its losses."""
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(THREADS)
    facts = json.loads((options.folder / "text.json").read_text())
    ids = torch.load(options.folder / "ids.pt")
    begin = theirs if options.side == "theirs" else ours
    step = begin(options, facts, ids)
    losses: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < options.seconds:
        losses.append(step(learning_rate(len(losses), facts)))
    seconds = time.perf_counter() - began
    tokens = len(losses) * facts["batch_size"] * facts["length"]
    print(json.dumps({"losses": losses, "seconds": seconds, "tokens_per_second": tokens / seconds}))


def learning_rate(step: int, facts: dict[str, Any]) -> float:
    return float(facts["learning_rate"] * min(1.0, (step + 1) / facts["warm_up"]))


def theirs(options: argparse.Namespace, facts: dict[str, Any], ids: Any) -> Any:
    """Their model, iterator and step; their weights are kept for ours to begin with."""
    import torch

    # Their adaptive softmax reads the version of CUDA while it is imported, which a CPU build does not have.
    torch.version.cuda = torch.version.cuda or "12.0"
    # Their masks are bytes, which today's PyTorch refuses.
    torch.Tensor.byte = torch.Tensor.bool  # type: ignore[method-assign]
    sys.path[:0] = [str(options.authors / "pytorch"), str(options.authors / "pytorch" / "utils")]
    from data_utils import LMOrderedIterator
    from mem_transformer import MemTransformerLM

    length = facts["length"]
    model = MemTransformerLM(
        facts["vocabulary"], facts["n_layer"], facts["n_head"], facts["d_model"], facts["d_head"], facts["d_inner"],
        0.0, 0.0, tie_weight=True, d_embed=facts["d_model"], div_val=1,
        tie_projs=[False] + [True] * len(facts["cutoffs"]), tgt_len=length, ext_len=0, mem_len=length,
        cutoffs=facts["cutoffs"],
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if "layer_norm.weight" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.02)
        elif parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0.0, 0.02)
        else:
            torch.nn.init.zeros_(parameter)
    torch.save(model, options.folder / "model.pt")
    optimizer = torch.optim.Adam(model.parameters(), lr=facts["learning_rate"])
    state: dict[str, Any] = {"mems": (), "batches": iter(())}
    iterator = LMOrderedIterator(ids, facts["batch_size"], length)

    def step(rate: float) -> float:
        data, target, _ = next(state["batches"], (None, None, None))
        if data is None:
            state["batches"], state["mems"] = iter(iterator), ()
            data, target, _ = next(state["batches"])
        optimizer.param_groups[0]["lr"] = rate
        model.zero_grad()
        result = model(data, target, *state["mems"])
        loss, state["mems"] = result[0].float().mean(), result[1:]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(loss.item())

    return step


def ours(options: argparse.Namespace, facts: dict[str, Any], ids: Any) -> Any:
    """Our model with their weights, our segments, our optimiser, and the step of our training loop."""
    import numpy
    import torch

    from transformer_xl.conversion.original_torch import read_original_torch
    from transformer_xl.conversion.source_model import build_model
    from transformer_xl.data.segments import Segments
    from transformer_xl.training.optimizers import optimizer_for
    from transformer_xl.training.settings import TrainingSettings

    model = build_model(read_original_torch(options.folder), {})[0].train()
    settings = TrainingSettings(optimizer="adam", beta2=0.999, learning_rate=facts["learning_rate"])
    optimizer = optimizer_for(model, settings)
    batch_size, length = facts["batch_size"], facts["length"]
    segments = Segments(ids.numpy().astype(numpy.uint16), batch_size, length)
    state: dict[str, Any] = {"mems": None, "index": 0}

    def step(rate: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate
        segment = segments[state["index"]]
        output = model(segment.inputs, mems=state["mems"], shift_labels=segment.targets)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        state["mems"], state["index"] = output.mems, state["index"] + 1
        if state["index"] == len(segments):
            state["mems"], state["index"] = None, 0
        return float(output.loss.item())

    return step


def report(options: argparse.Namespace, sides: dict[str, Any], facts: dict[str, Any]) -> None:
    """Prints the curves side by side and keeps the row; refuses to compare what did not learn alike."""
    theirs, ours = sides["theirs"]["losses"], sides["ours"]["losses"]
    both = min(len(theirs), len(ours))
    differences = [abs(a - b) for a, b in zip(theirs, ours, strict=False)]
    half = both // 2
    means = [statistics.fmean(losses[half:both]) for losses in (theirs, ours)]
    noise = statistics.stdev(theirs[half:both]) / (both - half) ** 0.5
    ratio = sides["ours"]["tokens_per_second"] / sides["theirs"]["tokens_per_second"]
    for begin in range(0, both, max(1, both // 10)):
        stop = min(both, begin + max(1, both // 10))
        print(f"steps {begin:5} to {stop:5}: theirs {statistics.fmean(theirs[begin:stop]):.4f}, "
              f"ours {statistics.fmean(ours[begin:stop]):.4f} nats")  # fmt: skip
    print(f"steps {half} to {both}: theirs {means[0]:.5f}, ours {means[1]:.5f} nats, noise of the mean {noise:.5f}")
    last = [statistics.fmean(losses[-half // 2 :]) for losses in (theirs, ours)]
    print(f"after {options.seconds:g} s: theirs {last[0]:.4f}, ours {last[1]:.4f} nats; {ratio:.2f} times the tokens")
    print("difference at the first steps:", " ".join(f"{each:.1e}" for each in differences[:10]))
    if differences[0] > 1e-5 or abs(means[0] - means[1]) > 3 * noise:
        raise SystemExit("the sides do not learn alike; nothing was kept")
    now = datetime.datetime.now(datetime.UTC)
    commit = ["git", "-C", str(options.authors), "rev-parse", "HEAD"]
    row = {
        "benchmark": "against_authors",
        "date": now.isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {THREADS} threads",
        "versions": {name: version(name) for name in ("torch", "transformers")}
        | {"python": platform.python_version()}
        | {"authors": subprocess.run(commit, text=True, stdout=subprocess.PIPE).stdout.strip() or "unknown"},
        "load": os.getloadavg(),
        "model": facts | {"memory": facts["length"], "clip": CLIP, "optimizer": "adam"},
        "seconds": options.seconds,
        "times_more_tokens": ratio,
        "differences_of_the_first_20_steps": differences[:20],
        "mean_of_last_half": {"theirs": means[0], "ours": means[1], "standard_error": noise, "steps": [half, both]},
        "after_the_seconds": {"theirs": last[0], "ours": last[1]},
        "theirs": summary(sides["theirs"]),
        "ours": summary(sides["ours"]),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d-%H%M%S}-against-authors-{facts['text']}.json"
    path.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(row))


def summary(side: dict[str, Any]) -> dict[str, Any]:
    """The losses as means of ten steps, which is enough to draw."""
    losses = side.pop("losses")
    curve = [round(statistics.fmean(losses[begin : begin + 10]), 4) for begin in range(0, len(losses), 10)]
    return {**side, "steps": len(losses), "loss_of_each_ten_steps": curve}


if __name__ == "__main__":
    main()
