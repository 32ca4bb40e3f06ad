"""Bach's chorales as ids, four voices a sixteenth, learned in eleven keys: Jsb16thSeparated.json.gz OUT [MINUTES]."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch

from transformer_xl.data.segments import Segments
from transformer_xl.modeling.reading import Reader
from transformer_xl.training.loop import train
from transformer_xl.training.run_folder import load_run
from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

file, out, minutes = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 10.0
chorales = json.loads(gzip.decompress(file.read_bytes()))
REST, LOWEST, BEGIN = 0, 30, 58
for split, keys in {"train": range(-5, 6), "valid": [0]}.items():
    rows = [
        [BEGIN, *(REST if note < 0 else note + key - LOWEST for step in chorale for note in step)]
        for key in keys for chorale in random.Random(key).sample(chorales[split], len(chorales[split]))
    ]  # fmt: skip
    np.save(f"{out}.{split}.npy", np.concatenate(rows).astype(np.uint8))

text = TextSettings(f"{out}.train.npy", f"{out}.valid.npy", unit="id", vocab_size=BEGIN + 1)
model = ModelSettings(num_layers=4, width=128, inner_width=512, memory_length=256, dropout=0.05)
training = TrainingSettings(segment_length=128, batch_size=8, minutes=minutes, learning_rate=2e-3, evaluations=5)
train(RunSettings(text, model, training), out, show_progress=True)

reader, losses = Reader(load_run(out)[0]), []
with torch.no_grad():
    for segment in Segments(np.load(f"{out}.valid.npy"), batch_size=1, segment_length=128):
        losses.append(reader.losses(segment.inputs, segment.targets)[segment.targets < BEGIN])
print(f"{torch.cat(losses).mean():.4f} nats for each of {len(torch.cat(losses)):,} notes of the validation chorales")
