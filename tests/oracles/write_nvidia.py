"""Writes tests/golden/conversion/nvidia_*: checkpoints that NVIDIA's code saves, of tiny models, and its losses.

Run with a folder of NVIDIA's DeepLearningExamples, by the environment that README.md beside this file describes:
`python tests/oracles/write_nvidia.py DeepLearningExamples/PyTorch/LanguageModeling/Transformer-XL/pytorch`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import logging
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "conversion"
BATCH_SIZE, SEGMENT_LENGTH, NUM_SEGMENTS = 2, 4, 3
TEXT = "<eos> <unk> the cat sat on mat a dog and Zoë saw 日本 in end knows what . , of to at"
WORDS = TEXT.split()
BASE: dict[str, Any] = {
    "n_token": len(WORDS),
    "n_layer": 2,
    "n_head": 2,
    "d_model": 8,
    "d_head": 4,
    "d_inner": 12,
    "dropout": 0.0,
    "dropatt": 0.0,
    "dtype": None,
    "tie_weight": True,
    "d_embed": 8,
    "div_val": 1,
    "tie_projs": [False],
    "pre_lnorm": False,
    "tgt_len": 4,
    "ext_len": 0,
    "mem_len": 5,
    "cutoffs": [],
    "same_length": False,
    "attn_type": 0,
    "clamp_len": -1,
    "sample_softmax": -1,
}
CASES: dict[str, dict[str, Any]] = {
    "adaptive": {"div_val": 2, "cutoffs": [8, 15], "tie_projs": [False, True, True]},
    "narrow_embedding": {"d_embed": 6, "cutoffs": [8], "tie_projs": [False, True]},
    "untied": {"div_val": 2, "cutoffs": [8], "tie_projs": [False, False], "tie_weight": False},
    "type_3": {"attn_type": 3},
}


def import_nvidia_code(folder: Path) -> tuple[Any, Any, Any]:
    """NVIDIA's model and vocabulary, and the function of its train.py that saves, which imports much else."""
    sys.path.insert(0, str(folder))
    # Their package of helpers imports these, and does not need them here.
    sys.modules |= {name: types.ModuleType(name) for name in ("dllogger", "pynvml")}
    sys.modules["pynvml"].nvmlInit = lambda: None
    import mem_transformer
    from utils.vocabulary import Vocab

    tree = ast.parse((folder / "train.py").read_text(encoding="utf-8"))
    function = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == "save_checkpoint")
    utils = types.SimpleNamespace(
        distributed=types.SimpleNamespace(
            sync_workers=lambda: contextlib.nullcontext(0), all_gather_tensors=lambda tensor, device: [tensor]
        ),
        # Theirs is five thousand bytes, and asks for a GPU.
        exp_utils=types.SimpleNamespace(
            get_default_rng_states=lambda device: {"cpu": torch.zeros(3, dtype=torch.uint8)}
        ),
    )
    names = {"torch": torch, "os": os, "logging": logging, "shutil": shutil, "utils": utils}
    exec(compile(ast.Module([function], []), "train.py", "exec"), names)
    return mem_transformer, Vocab, names["save_checkpoint"]


def main() -> None:
    """Writes every case."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/oracles/write_nvidia.py PATH_TO_THEIR_FOLDER")
    torch.set_num_threads(1)
    mem_transformer, vocabulary_class, save_checkpoint = import_nvidia_code(Path(sys.argv[1]))
    vocabulary = vocabulary_class(special=["<eos>", "<unk>"], lower_case=False)
    vocabulary.count_sents([WORDS])
    vocabulary.build_vocab()
    for name, changes in CASES.items():
        config = BASE | changes
        generator = torch.Generator().manual_seed(0)
        model = mem_transformer.MemTransformerLM(**config).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                center = 1.0 if key.endswith("layer_norm.weight") else 0.0
                parameter.copy_(center + 0.3 * torch.randn(parameter.shape, generator=generator))
        if config["cutoffs"]:
            model.crit.keep_order = True
        optimizer = torch.optim.Adam(model.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        arguments = argparse.Namespace(fp16=False, dataset="wt103", work_dir="LM-TFM", save_all=False)
        folder = FOLDER / f"nvidia_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        training = (optimizer, scheduler, None, vocabulary, 1, 2, 3, 4, 5.0, True)
        memory = model.init_mems()
        save_checkpoint(arguments, model, memory, config, *training, str(folder), torch.device("cpu"))
        (folder / "checkpoint_last.pt").unlink()
        tokens = torch.randint(len(WORDS), (BATCH_SIZE, SEGMENT_LENGTH * NUM_SEGMENTS + 1), generator=generator)
        mems, losses = None, []
        for start in range(0, SEGMENT_LENGTH * NUM_SEGMENTS, SEGMENT_LENGTH):
            with torch.no_grad():
                inputs, targets = (
                    tokens[:, first : first + SEGMENT_LENGTH].T.contiguous() for first in (start, start + 1)
                )
                segment, mems = model(inputs, targets, mems)
            losses.append(segment.T.tolist())
        expected = {"config": config, "tokens": tokens.tolist(), "segment_length": SEGMENT_LENGTH, "losses": losses}
        (folder / "expected.json").write_text(json.dumps(expected))
        print(f"{sum(file.stat().st_size for file in folder.iterdir()):8,d} bytes  {folder.name}")


if __name__ == "__main__":
    main()
