"""Writes tests/golden/conversion/torch_*: work folders of the authors' PyTorch code, on tiny models, and its losses.

Run with a checkout of kimiyoung/transformer-xl, by the environment that README.md beside this file describes:
`python tests/oracles/write_original_torch_folders.py PATH_TO_CHECKOUT`.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from write_original_torch import BASE_CONFIG, build, fill_parameters, import_authors_code

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "conversion"
BATCH_SIZE, SEGMENT_LENGTH, NUM_SEGMENTS = 2, 4, 3
SMALL = {"d_model": 8, "d_embed": 8, "n_head": 2, "d_head": 4, "d_inner": 12, "mem_len": 5, "tgt_len": 4}
LINES = ["the cat sat on the mat", "a dog and a cat", "Zoë saw 日本 in the end", "<unk> knows what the dog saw"]

# The configuration, how torch.save packs the file, and the type of its numbers.
CASES: dict[str, tuple[dict[str, Any], str, torch.dtype]] = {
    "type_0": ({"attn_type": 0, "div_val": 2, "cutoffs": [7, 14]}, "zip", torch.float32),
    "type_0_old": ({"attn_type": 0, "d_embed": 6, "cutoffs": [7, 14], "same_length": True}, "old", torch.float32),
    "type_0_untied": (
        {"attn_type": 0, "div_val": 2, "cutoffs": [9], "tie_word_embeddings": False, "proj_share_all_but_first": False},
        "old",
        torch.float32,
    ),
    "type_0_half": ({"attn_type": 0, "pre_lnorm": True, "clamp_len": 3}, "zip", torch.float16),
    "type_1": ({"attn_type": 1}, "zip", torch.float32),
    "type_2": ({"attn_type": 2}, "old", torch.float32),
    "type_3": ({"attn_type": 3}, "zip", torch.float32),
}


def write_corpus(folder: Path) -> int:
    """Writes cache.pt by the authors' code; the number of symbols."""
    import data_utils

    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return len(data_utils.get_lm_corpus(str(folder), "wt103").vocab)


def leave_out_source_code() -> None:
    """The format before torch 1.6 has the source code of every module in it; ours has a line in its place."""
    torch.serialization.get_source_lines_and_file = lambda kind: (["their code\n"], 1, "mem_transformer.py")


def run(model: torch.nn.Module, tokens: torch.Tensor, width: int, n_layer: int) -> list[Any]:
    """The losses [N, B, T] of segments that follow each other, from an empty memory."""
    mems = [torch.zeros(0, BATCH_SIZE, width) for _ in range(n_layer + 1)]
    losses = []
    for start in range(0, SEGMENT_LENGTH * NUM_SEGMENTS, SEGMENT_LENGTH):
        with torch.no_grad():
            inputs, targets = (tokens[:, first : first + SEGMENT_LENGTH].T.contiguous() for first in (start, start + 1))
            segment, *mems = model(inputs, targets, *(memory.clone() for memory in mems))
        losses.append(segment.T.tolist())
    return losses


def write_case(authors: Any, name: str, changes: dict[str, Any], packing: str, dtype: torch.dtype) -> None:
    """Writes one work folder with expected.json."""
    folder = FOLDER / f"torch_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        n_token = write_corpus(Path(data))
        (folder / "cache.pt").write_bytes((Path(data) / "cache.pt").read_bytes())
    config = BASE_CONFIG | SMALL | changes | {"vocab_size": n_token}
    generator = torch.Generator().manual_seed(0)
    model = build(authors, config)
    fill_parameters(model, generator)
    model = model.to(dtype).eval()
    buffer = io.BytesIO()
    torch.save(model, buffer, _use_new_zipfile_serialization=packing == "zip")
    (folder / "model.pt").write_bytes(buffer.getvalue())
    tokens = torch.randint(n_token, (BATCH_SIZE, SEGMENT_LENGTH * NUM_SEGMENTS + 1), generator=generator)
    losses = run(model.float(), tokens, config["d_model"], config["n_layer"])
    expected = {"config": config, "tokens": tokens.tolist(), "segment_length": SEGMENT_LENGTH, "losses": losses}
    (folder / "expected.json").write_text(json.dumps(expected))
    print(f"{sum(file.stat().st_size for file in folder.iterdir()):8,d} bytes  {folder.name}")


def main() -> None:
    """Writes every case."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/oracles/write_original_torch_folders.py PATH_TO_CHECKOUT")
    torch.set_num_threads(1)
    authors = import_authors_code(Path(sys.argv[1]))
    leave_out_source_code()
    for name, case in CASES.items():
        write_case(authors, name, *case)


if __name__ == "__main__":
    main()
