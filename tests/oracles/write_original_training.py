"""Writes tests/golden/original_training_*.safetensors: the losses of the authors' PyTorch code while it trains.

Run with a checkout of kimiyoung/transformer-xl, by the environment that README.md beside this file describes:
`python tests/oracles/write_original_training.py PATH_TO_CHECKOUT`. Running twice gives the same bytes on one machine.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from write_original_torch import BASE_CONFIG, GOLDEN_FOLDER, build, import_authors_code, published_weights

TEXT = Path(__file__).resolve().parents[2] / "src" / "transformer_xl" / "data" / "builtin" / "shakespeare.txt.xz"
TRAINING: dict[str, Any] = {"batch_size": 4, "length": 16, "learning_rate": 2e-3, "warm_up": 20, "clip": 0.25}
SIZE = {"d_inner": 32, "tgt_len": 16, "mem_len": 16, "attn_type": 0}
CASES: dict[str, list[int]] = {"characters": [], "words": [20, 100]}
STEPS = 100


def ids_of_text(unit: str, number: int) -> torch.Tensor:
    """The first symbols of the built-in text, numbered by frequency."""
    text = lzma.decompress(TEXT.read_bytes()).decode("utf-8")
    symbols = (list(text) if unit == "characters" else text.replace("\n", " <eos> ").split())[:number]
    numbers = {symbol: i for i, (symbol, _) in enumerate(Counter(symbols).most_common())}
    return torch.tensor([numbers[symbol] for symbol in symbols])


def write_case(authors: Any, iterators: Any, name: str, cutoffs: list[int]) -> None:
    """Trains their model on their iterator by the step of their train.py."""
    torch.manual_seed(0)
    # The end of the text is not reached: there their iterator leaves a token of each lane out.
    ids = ids_of_text(name, TRAINING["batch_size"] * TRAINING["length"] * (STEPS + 1) + 1)
    config = BASE_CONFIG | SIZE | {"cutoffs": cutoffs, "vocab_size": int(ids.max()) + 1}
    model = build(authors, config)
    for key, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if key.endswith("layer_norm.weight") else 0.0, 0.1)
    arrays = published_weights(model, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=TRAINING["learning_rate"])
    losses: list[float] = []
    mems: tuple[torch.Tensor, ...] = ()
    batches = iter(iterators.LMOrderedIterator(ids, TRAINING["batch_size"], TRAINING["length"]))
    for step in range(STEPS):
        data, target, _ = next(batches)
        optimizer.param_groups[0]["lr"] = TRAINING["learning_rate"] * min(1.0, (step + 1) / TRAINING["warm_up"])
        model.zero_grad()
        result = model(data, target, *mems)
        loss, mems = result[0].mean(), result[1:]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["clip"])
        optimizer.step()
        losses.append(float(loss.item()))
    arrays |= {"ids": ids.to(torch.int16), "losses": torch.tensor(losses)}
    path = GOLDEN_FOLDER / f"original_training_{name}.safetensors"
    # One entry, because several are written in any order.
    metadata = {"config": json.dumps(config | {"training": TRAINING}, sort_keys=True)}
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in arrays.items()}, path, metadata)
    print(f"{path.stat().st_size:7,d} bytes  {path.name}: {losses[0]:.4f} to {losses[-1]:.4f}")


def main() -> None:
    """Writes every case."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/oracles/write_original_training.py PATH_TO_CHECKOUT")
    torch.set_num_threads(1)
    authors = import_authors_code(Path(sys.argv[1]))
    import data_utils

    for name, cutoffs in CASES.items():
        write_case(authors, data_utils, name, cutoffs)


if __name__ == "__main__":
    main()
