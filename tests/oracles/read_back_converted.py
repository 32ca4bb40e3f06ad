"""Shows that transformers 4.37.2 opens what `transformer-xl convert` writes, and computes the scores of the source.

Used by hand, in two steps:

python tests/oracles/read_back_converted.py write FOLDER    (environment of this library, with h5py)
python tests/oracles/read_back_converted.py read FOLDER     (first environment of README.md beside this file)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "conversion"
TOLERANCE = 1e-5
# Language models that begin with zeros: 4.37.2 knows no other beginning.
CASES = ("tf_wt103_large", "tf_wt103_base", "tf_narrow_embedding", "tf_lm1b", "tf_enwik8")
CASES += ("keras_language_model", "keras_untied_projections", "hf_zip", "hf_old", "hf_safetensors", "hf_in_parts")


def expected(name: str) -> dict[str, Any]:
    """What the source computed."""
    content: dict[str, Any] = json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))
    return content


def write(folder: Path) -> None:
    """Converts every case."""
    from transformer_xl.conversion.convert import convert

    for name in CASES:
        flags = expected(name).get("config", {})
        changes = {key: flags[key] for key in ("same_length", "clamp_len") if key in flags}
        if flags:
            changes["mem_len"] = flags["mem_len"] + flags["same_length"]
        convert(GOLDEN / name, folder / name, changes=changes)


def read(folder: Path) -> None:
    """Opens every folder by transformers 4.37.2; ends with code 1 if a score differs."""
    from transformers import TransfoXLLMHeadModel

    failed = False
    for name in CASES:
        model = TransfoXLLMHeadModel.from_pretrained(folder / name).eval()
        golden = expected(name)
        tokens, mems, difference = torch.tensor(golden["tokens"]), None, 0.0
        length = golden.get("segment_length", 4)
        for number, theirs in enumerate(map(torch.tensor, golden.get("losses", golden.get("outputs")))):
            start, stop = number * length, (number + 1) * length
            with torch.no_grad():
                output = model(tokens[:, start:stop], mems=mems)
            scores, mems = output.prediction_scores, output.mems
            if "losses" in golden:
                scores = -scores.gather(-1, tokens[:, start + 1 : stop + 1, None]).squeeze(-1)
            difference = max(difference, ((scores - theirs).abs().max() / theirs.abs().max()).item())
        failed |= difference > TOLERANCE
        print(f"{name}: largest difference {difference:.1e}")
    raise SystemExit(failed)


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
