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
    scores = elastic_launch(config, train)(settings, out, resume)
    assert len({score.nats for score in scores.values()}) == 1
    score: Score = scores[0]
    return score
