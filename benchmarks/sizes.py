"""The model sizes that are measured, as arguments that both sides' configurations take."""

from __future__ import annotations

from typing import Any

Size = dict[str, Any]

PUBLISHED: Size = {
    "vocab_size": 267735, "cutoffs": [20000, 40000, 200000], "d_model": 1024, "d_embed": 1024, "n_head": 16,
    "d_head": 64, "d_inner": 4096, "div_val": 4, "n_layer": 18, "mem_len": 1600, "clamp_len": 1000, "same_length": True,
    "dropout": 0.1, "dropatt": 0.0, "eos_token_id": None,
}  # fmt: skip
TINY: Size = PUBLISHED | {
    "vocab_size": 10000, "cutoffs": [], "d_model": 256, "d_embed": 256, "n_head": 4, "d_inner": 1024, "div_val": 1,
    "n_layer": 4, "mem_len": 256, "clamp_len": 256,
}  # fmt: skip
SMALL: Size = TINY | {"vocab_size": 1000, "d_model": 128, "d_embed": 128, "n_head": 4, "d_head": 32, "d_inner": 256}
ENWIK8_BASE: Size = PUBLISHED | {
    "vocab_size": 204, "cutoffs": [], "d_model": 512, "d_embed": 512, "n_head": 8, "d_inner": 2048, "div_val": 1,
    "n_layer": 12, "mem_len": 512, "clamp_len": -1, "same_length": False,
}  # fmt: skip
WT103_BASE: Size = ENWIK8_BASE | {
    "vocab_size": 267735, "cutoffs": [20000, 40000, 200000], "d_model": 410, "d_embed": 410, "n_head": 10, "d_head": 41,
    "d_inner": 2100, "n_layer": 16, "mem_len": 150,
}  # fmt: skip
