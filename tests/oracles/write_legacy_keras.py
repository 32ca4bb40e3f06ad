"""Writes tests/golden/conversion/keras_*: folders with tf_model.h5, as TensorFlow classes of transformers 4 save them.

Run by the second environment that README.md beside this file describes: `python tests/oracles/write_legacy_keras.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from transformers import (
    TFTransfoXLForSequenceClassification,
    TFTransfoXLLMHeadModel,
    TFTransfoXLModel,
    TransfoXLConfig,
)

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "conversion"
BASE: dict[str, Any] = {
    "vocab_size": 37,
    "cutoffs": [10, 20],
    "d_model": 8,
    "d_embed": 8,
    "n_head": 2,
    "d_head": 3,
    "d_inner": 12,
    "div_val": 2,
    "n_layer": 2,
    "mem_len": 5,
    "clamp_len": 4,
    "same_length": True,
    "dropout": 0.0,
    "pad_token_id": 0,
}
# Their TensorFlow classes run with div_val of at least 2 and untied biases only.
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "language_model": (TFTransfoXLLMHeadModel, {}),
    "untied_projections": (TFTransfoXLLMHeadModel, {"proj_share_all_but_first": False, "same_length": False}),
    "no_head": (TFTransfoXLModel, {}),
    "classifier": (TFTransfoXLForSequenceClassification, {"num_labels": 3}),
}


def main() -> None:
    """Writes every case, with expected.json: token ids, and the first output for two segments."""
    for name, (kind, changes) in CASES.items():
        config = TransfoXLConfig(**BASE | changes)
        model = kind(config)
        tokens = np.random.default_rng(1).integers(1, 37, size=(2, 8))
        model(tokens[:, :4])
        random = np.random.default_rng(2)
        weights = {}
        for variable in model.weights:
            center = 1.0 if "gamma" in variable.name else 0.0
            variable.assign(center + 0.3 * random.standard_normal(variable.shape))
            weights[variable.name] = variable
        tie(model, config)
        first = model(tokens[:, :4])
        second = model(tokens[:, 4:], mems=first.mems)
        folder = FOLDER / f"keras_{name}"
        model.save_pretrained(folder)
        outputs = [np.asarray(output[0]).astype(float).tolist() for output in (first, second)]
        (folder / "expected.json").write_text(json.dumps({"tokens": tokens.tolist(), "outputs": outputs}))
        print(f"{sum(file.stat().st_size for file in folder.iterdir()):8,d} bytes  {folder.name}")


def tie(model: tf.keras.Model, config: TransfoXLConfig) -> None:
    """Gives tied weights one value: these classes keep them as variables of their own."""
    if not hasattr(model, "crit"):
        return
    embedding = model.transformer.word_emb
    for band, (weight, _) in enumerate(model.crit.out_layers):
        weight.assign(embedding.emb_layers[band].weight)
    for band, tied in enumerate(config.tie_projs):
        if tied:
            model.crit.out_projs[band].assign(embedding.emb_projs[band])


if __name__ == "__main__":
    main()
