"""Writes tests/golden/conversion/hf_*: folders that transformers 4.37.2 saves, with tokenizers, of tiny models.

Run by the environment that README.md beside this file describes: `python tests/oracles/write_legacy_hf_folders.py`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TransfoXLConfig,
    TransfoXLForSequenceClassification,
    TransfoXLLMHeadModel,
    TransfoXLModel,
    TransfoXLTokenizer,
)

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "conversion"
TEXT = "<eos> <unk> <formula> the cat sat on mat a dog and Zoë saw 日本 in end knows what . , of to at"
WORDS = TEXT.split()
BASE: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "cutoffs": [8, 15],
    "d_model": 8,
    "d_embed": 8,
    "n_head": 2,
    "d_head": 3,
    "d_inner": 12,
    "div_val": 2,
    "n_layer": 2,
    "mem_len": 5,
    "clamp_len": 4,
    "dropout": 0.0,
    "pad_token_id": 0,
}
# The class, the configuration, and how the weights are saved.
CASES: dict[str, tuple[type, dict[str, Any], str]] = {
    "zip": (TransfoXLLMHeadModel, {}, "zip"),
    "old": (TransfoXLLMHeadModel, {"untie_r": False, "div_val": 1, "cutoffs": []}, "old"),
    "safetensors": (TransfoXLLMHeadModel, {"tie_word_embeddings": False}, "safetensors"),
    "in_parts": (TransfoXLLMHeadModel, {"pre_lnorm": True}, "in parts"),
    "no_head": (TransfoXLModel, {"same_length": False}, "zip"),
    "classifier": (TransfoXLForSequenceClassification, {"num_labels": 3}, "old"),
}


def save(model: torch.nn.Module, folder: Path, packing: str) -> None:
    """Saves as that version of transformers and torch would."""
    if packing == "in parts":
        model.save_pretrained(folder, safe_serialization=False, max_shard_size="4KB")
    else:
        model.save_pretrained(folder, safe_serialization=packing == "safetensors")
    if packing == "old":
        torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def main() -> None:
    """Writes every case, with expected.json: token ids, and the first output for two segments."""
    os.environ["TRUST_REMOTE_CODE"] = "True"
    tokenizer = TransfoXLTokenizer(special=WORDS[:3], lower_case=False)
    tokenizer.count_sents([WORDS])
    tokenizer.build_vocab()
    for name, (kind, changes, packing) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        model = kind(TransfoXLConfig(**BASE | changes)).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                center = 1.0 if key.endswith("layer_norm.weight") else 0.0
                parameter.copy_(center + 0.3 * torch.randn(parameter.shape, generator=generator))
        folder = FOLDER / f"hf_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        save(model, folder, packing)
        tokenizer.save_pretrained(folder)
        tokens = torch.randint(1, len(WORDS), (2, 8), generator=generator)
        with torch.no_grad():
            first = model(tokens[:, :4])
            second = model(tokens[:, 4:], mems=first.mems)
        outputs = [output[0].tolist() for output in (first, second)]
        (folder / "expected.json").write_text(json.dumps({"tokens": tokens.tolist(), "outputs": outputs}))
        print(f"{sum(file.stat().st_size for file in folder.iterdir()):8,d} bytes  {folder.name}")


if __name__ == "__main__":
    main()
