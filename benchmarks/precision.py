"""What int8 weights and bfloat16 cost in perplexity, on a small model trained on the built-in corpus."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from comparison import Comparison


def run(comparison: Comparison) -> None:
    from transformer_xl.data.corpus import open_corpus
    from transformer_xl.evaluation import Protocol, evaluate
    from transformer_xl.quantization import quantize_weights
    from transformer_xl.training.loop import train
    from transformer_xl.training.run_folder import load_run
    from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

    comparison.section("perplexity of a small model after 300 steps on the built-in corpus")
    settings = RunSettings(
        TextSettings("builtin:shakespeare"),
        ModelSettings(num_layers=4, width=128, num_heads=4, inner_width=256, memory_length=64),
        TrainingSettings(segment_length=64, batch_size=16, steps=300, evaluations=1),
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(settings, out)
        model, half = load_run(out)[0], load_run(out)[0].to(torch.bfloat16)
        ids = open_corpus(out / "corpus").valid
    scores = {
        name: evaluate(each, ids, Protocol(64, 64, batch_size=8))
        for name, each in {"float32": model, "int8": quantize_weights(model), "bfloat16": half}.items()
    }
    for name, score in scores.items():
        dearer = score.perplexity / scores["float32"].perplexity - 1
        comparison.row(name, None, perplexity=score.perplexity, dearer_by=dearer)
