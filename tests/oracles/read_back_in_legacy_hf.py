"""Shows that transformers 4.37.2 opens what this library saves, and computes the same scores.

Used by hand, in two steps:

python tests/oracles/read_back_in_legacy_hf.py write FOLDER    (environment of this library)
python tests/oracles/read_back_in_legacy_hf.py read FOLDER     (environment of README.md beside this file)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-5
CASES: dict[str, dict[str, Any]] = {
    "like_wikitext103": {"div_val": 4, "same_length": True, "clamp_len": 5},
    "shared_biases_norm_first": {"div_val": 1, "untie_r": False, "pre_lnorm": True},
    "narrow_embedding": {"div_val": 1, "d_embed": 8},
    "untied": {"div_val": 2, "tie_word_embeddings": False, "proj_share_all_but_first": False},
}
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "cutoffs": [12, 24],
    "d_model": 16,
    "d_embed": 16,
    "n_head": 2,
    "d_head": 6,
    "d_inner": 24,
    "n_layer": 2,
    "mem_len": 8,
}


def scores(model: Any, segments: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [N, B, T, V] of N consecutive segments [N, B, T]."""
    mems, collected = None, []
    with torch.no_grad():
        for input_ids in segments:
            output = model(input_ids, mems=mems)
            mems = output.mems
            collected.append(output.prediction_scores)
    return torch.stack(collected)


def write(folder: Path) -> None:
    """Saves models of random weights by this library, with the scores that it computes."""
    from transformer_xl.configuration import TransfoXLConfig
    from transformer_xl.modeling.heads import TransfoXLLMHeadModel

    torch.manual_seed(0)
    for name, changes in CASES.items():
        model = TransfoXLLMHeadModel(TransfoXLConfig(**SIZES | changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
        segments = torch.randint(SIZES["vocab_size"], (3, 2, 6))
        save_file({"segments": segments, "scores": scores(model, segments)}, folder / name / "expected.safetensors")
        print(f"wrote {folder / name}")


def read(folder: Path) -> None:
    """Opens those models by transformers 4.37.2; ends with code 1 if a weight is missing or a score differs."""
    from transformers import TransfoXLLMHeadModel

    failed = False
    for name in CASES:
        model, report = TransfoXLLMHeadModel.from_pretrained(folder / name, output_loading_info=True)
        missing, unexpected = report["missing_keys"], report["unexpected_keys"]
        expected = load_file(folder / name / "expected.safetensors")
        theirs = scores(model.eval(), expected["segments"])
        difference = ((theirs - expected["scores"]).abs().max() / expected["scores"].abs().max()).item()
        failed |= bool(missing or unexpected or difference > TOLERANCE)
        print(f"{name}: missing {missing}, unexpected {unexpected}, relative difference {difference:.1e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "read"):
        raise SystemExit("usage: python tests/oracles/read_back_in_legacy_hf.py write|read FOLDER")
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
