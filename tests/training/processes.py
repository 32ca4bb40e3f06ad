"""Training in several processes of this machine, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from transformer_xl.evaluation import Score
from transformer_xl.training.loop import train
from transformer_xl.training.settings import RunSettings


def forkserver() -> multiprocessing.context.ForkServerContext:
    """Where processes come from that need not import everything once more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformer_xl.training.loop"])
    return context


def train_in_processes(number: int, settings: RunSettings, out: Path, resume: bool = False) -> Score:
    """The score that all of the processes return."""
    return train_all_in_processes(number, {out: settings}, resume)[0]


def train_all_in_processes(number: int, runs: dict[Path, RunSettings], resume: bool = False) -> list[Score]:
    """The scores of runs that the same processes train one after the other."""
    forkserver()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        start_method="forkserver",
        monitor_interval=0.1,
        max_restarts=0,
    )
    by_process = elastic_launch(config, _train_all)(runs, resume)
    assert len({tuple(score.nats for score in scores) for scores in by_process.values()}) == 1
    scores: list[Score] = by_process[0]
    return scores


def _train_all(runs: dict[Path, RunSettings], resume: bool) -> list[Score]:
    return [train(settings, out, resume) for out, settings in runs.items()]
