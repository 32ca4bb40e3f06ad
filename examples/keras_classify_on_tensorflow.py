"""Tell lines of the built-in plays from the same lines written backwards: pip install '.[tensorflow]'."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

from transformer_xl import KerasTransfoXLForSequenceClassification, TransfoXLConfig
from transformer_xl.data.corpus import read_text
from transformer_xl.text.vocabulary import Vocabulary

LENGTH, LINES = 48, int(sys.argv[1]) if len(sys.argv) > 1 else 4000

text = read_text("builtin:shakespeare", "train")
vocabulary = Vocabulary.build(text, "char")
lines = [line.strip()[:LENGTH] for line in text.splitlines() if len(line) > 20][:LINES]
ids = np.zeros((2 * len(lines), LENGTH), "int32")
for i, line in enumerate(lines):
    # Id 0 is left for padding.
    ids[2 * i, : len(line)] = vocabulary.encode(line) + 1
    ids[2 * i + 1, : len(line)] = vocabulary.encode(line[::-1]) + 1
backwards = np.arange(len(ids)) % 2

config = TransfoXLConfig(
    vocab_size=len(vocabulary) + 1, cutoffs=[], div_val=1, d_model=64, d_embed=64, n_head=4, d_head=16, d_inner=256,
    n_layer=2, mem_len=0, clamp_len=-1, same_length=False, pad_token_id=0, num_labels=2,
)  # fmt: skip
model = KerasTransfoXLForSequenceClassification(config)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
model.fit(ids[400:], backwards[400:], batch_size=32, verbose=2)
print("accuracy on other lines:", model.evaluate(ids[:400], backwards[:400], verbose=0)[1])
