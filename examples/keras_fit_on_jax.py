"""Train the built-in plays by `fit` on JAX, with memory from batch to batch, then write: pip install '.[jax]'."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

from transformer_xl import KerasTransfoXLLMHeadModel, TransfoXLConfig
from transformer_xl.data.corpus import read_text
from transformer_xl.text.vocabulary import Vocabulary

ROWS, SEGMENT, STEPS = 16, 64, int(sys.argv[1]) if len(sys.argv) > 1 else 300

text = read_text("builtin:shakespeare", "train")
vocabulary = Vocabulary.build(text, "char")
ids = vocabulary.encode(text).astype("int32")[: ROWS * (STEPS * SEGMENT + 1)]
streams = ids[: len(ids) // ROWS * ROWS].reshape(ROWS, -1)
starts = range(0, streams.shape[1] - SEGMENT, SEGMENT)
inputs = np.concatenate([streams[:, start : start + SEGMENT] for start in starts])
targets = np.concatenate([streams[:, start + 1 : start + SEGMENT + 1] for start in starts])

config = TransfoXLConfig(
    vocab_size=len(vocabulary), cutoffs=[], div_val=1, d_model=128, d_embed=128, n_head=4, d_head=32, d_inner=512,
    n_layer=4, mem_len=SEGMENT, clamp_len=-1, same_length=False, initial_memory="empty",
)  # fmt: skip
model = KerasTransfoXLLMHeadModel(config, stateful_batch_size=ROWS)
model.compile(keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(inputs, targets, batch_size=ROWS, shuffle=False, verbose=2)

prompt = vocabulary.encode("ROMEO.\n").astype("int32")[None]
print(vocabulary.decode(model.generate(prompt, max_new_tokens=200, temperature=0.8, seed=1)[0].tolist()))
