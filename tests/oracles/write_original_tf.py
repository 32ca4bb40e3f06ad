"""Writes tests/golden/conversion/tf_*: work folders of the authors' TensorFlow code, on tiny models, and its losses.

Run with a checkout of kimiyoung/transformer-xl by the second environment that README.md beside this file describes:
`python tests/oracles/write_original_tf.py PATH_TO_CHECKOUT`.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "conversion"
BATCH_SIZE, SEGMENT_LENGTH, NUM_SEGMENTS = 2, 4, 3

BASE: dict[str, Any] = {
    "n_layer": 2,
    "d_model": 8,
    "d_embed": 8,
    "n_head": 2,
    "d_head": 3,
    "d_inner": 12,
    "div_val": 1,
    "mem_len": 5,
    "clamp_len": -1,
    "same_length": False,
    "untie_r": False,
    "proj_same_dim": True,
    "proj_share_all_but_first": False,
}
# The settings of the scripts in tf/sota and tf/scripts, with tiny sizes in the same relations.
CASES: dict[str, dict[str, Any]] = {
    "wt103_large": {
        "dataset": "wt103",
        "cutoffs": [10, 20],
        "div_val": 2,
        "untie_r": True,
        "proj_share_all_but_first": True,
        "same_length": True,
        "clamp_len": 4,
    },
    "wt103_base": {"dataset": "wt103", "cutoffs": [10, 20], "untie_r": True, "proj_share_all_but_first": True},
    "narrow_embedding": {"dataset": "wt103", "cutoffs": [10, 20], "d_embed": 6, "proj_share_all_but_first": True},
    "lm1b": {"dataset": "lm1b", "cutoffs": [10, 20], "div_val": 2, "untie_r": True, "proj_same_dim": False},
    "enwik8": {"dataset": "enwik8", "cutoffs": []},
}


def import_authors_code(checkout: Path) -> tuple[Any, Any]:
    """The authors' modules `model` and `data_utils`, made to run on TensorFlow 2 without a change to their files."""
    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()

    def layer_norm(inputs: Any, begin_norm_axis: int) -> Any:
        """What tf.contrib.layers.layer_norm of TensorFlow 1.12 computes, with its variables and its 1e-12."""
        with tf.variable_scope(None, "LayerNorm"):
            width = inputs.shape[begin_norm_axis]
            beta = tf.get_variable("beta", [width], initializer=tf.zeros_initializer())
            gamma = tf.get_variable("gamma", [width], initializer=tf.ones_initializer())
        mean, variance = tf.nn.moments(inputs, [begin_norm_axis], keepdims=True)
        return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 1e-12)

    shim = types.ModuleType("tensorflow")
    shim.__dict__.update({name: getattr(tf, name) for name in dir(tf)})
    shim.contrib = types.SimpleNamespace(layers=types.SimpleNamespace(layer_norm=layer_norm))
    gfile = types.ModuleType("tensorflow.gfile")
    gfile.Open, gfile.Exists, gfile.MakeDirs, gfile.Glob = open, os.path.exists, os.makedirs, glob.glob
    sys.modules |= {"tensorflow": shim, "tensorflow.gfile": gfile}
    sys.path.insert(0, str(checkout / "tf"))
    import data_utils
    import model

    return model, data_utils


def write_corpus(data_utils: Any, folder: Path, config: dict[str, Any]) -> int:
    """Writes cache.pkl and corpus-info.json by the authors' code; the number of symbols."""
    generator = np.random.default_rng(0)
    words = [f"word{i}" for i in generator.zipf(1.3, 400) if i < 40] + [f"word{i}" for i in range(1, 30)]
    lines = [" ".join(words[start : start + 8]) for start in range(0, len(words), 8)]
    if config["dataset"] == "lm1b":
        symbols = ["<S>", "<UNK>", *dict.fromkeys(words)]
        (folder / "1b_word_vocab.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols))
    if config["dataset"] == "enwik8":
        lines = [" ".join(str(ord(letter)) for letter in line) for line in lines]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    initialise = data_utils.Corpus.__init__

    def initialise_with_tiny_cutoffs(corpus: Any, *arguments: Any, **keywords: Any) -> None:
        initialise(corpus, *arguments, **keywords)
        # Theirs begin at 20000; with both ends, as they keep them.
        corpus.cutoffs = [0, *config["cutoffs"], len(corpus.vocab)] if config["cutoffs"] else []
        corpus.vocab.vocab_file = corpus.vocab.vocab_file and "1b_word_vocab.txt"

    data_utils.Corpus.__init__ = initialise_with_tiny_cutoffs
    corpus = data_utils.get_lm_corpus(str(folder), config["dataset"])
    data_utils.Corpus.__init__ = initialise
    return len(corpus.vocab)


def write_case(model: Any, data_utils: Any, name: str, config: dict[str, Any]) -> None:
    """Writes one work folder, with expected.json: inputs, targets and losses of segments that follow each other."""
    tf = tensorflow.compat.v1
    folder = FOLDER / f"tf_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        n_token = write_corpus(data_utils, Path(data), config)
        for file in ("cache.pkl", "corpus-info.json"):
            (folder / file).write_bytes((Path(data) / file).read_bytes())
    generator = np.random.default_rng(1)
    tokens = generator.integers(n_token, size=(BATCH_SIZE, SEGMENT_LENGTH * NUM_SEGMENTS + 1))
    tf.reset_default_graph()
    initializer = tf.initializers.random_normal(stddev=0.3, seed=1)
    inputs, targets = (tf.placeholder(tf.int32, [None, BATCH_SIZE]) for _ in range(2))
    mems = [
        tf.placeholder(tf.float32, [config["mem_len"], BATCH_SIZE, config["d_model"]]) for _ in range(config["n_layer"])
    ]
    tie_projs = [False] + [config["proj_share_all_but_first"]] * len(config["cutoffs"])
    names = ("n_layer", "d_model", "d_embed", "n_head", "d_head", "d_inner", "mem_len", "cutoffs", "div_val")
    names += ("same_length", "clamp_len", "untie_r", "proj_same_dim")
    losses, new_mems = model.transformer(
        inputs,
        targets,
        mems,
        n_token,
        dropout=0.0,
        dropatt=0.0,
        initializer=initializer,
        is_training=False,
        use_tpu=False,
        tie_projs=tie_projs,
        **{name: config[name] for name in names},
    )
    step = tf.train.get_or_create_global_step()
    training = tf.train.AdamOptimizer(0.0).minimize(tf.reduce_mean(losses), global_step=step)
    results = []
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        random = np.random.default_rng(2)
        for variable in tf.trainable_variables():
            center = 1.0 if variable.op.name.endswith("gamma") else 0.0
            variable.load(center + 0.3 * random.standard_normal(variable.shape).astype(np.float32), session)
        memory = [np.zeros(layer.shape.as_list(), np.float32) for layer in mems]
        for start in range(0, SEGMENT_LENGTH * NUM_SEGMENTS, SEGMENT_LENGTH):
            stop = start + SEGMENT_LENGTH
            feed = {inputs: tokens[:, start:stop].T, targets: tokens[:, start + 1 : stop + 1].T}
            segment, memory = session.run([losses, new_mems], {**feed, **dict(zip(mems, memory, strict=True))})
            results.append(segment.T.astype(float).tolist())
        session.run(training, {**feed, **dict(zip(mems, memory, strict=True))})
        tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=step, write_meta_graph=False)
    expected = {"config": config, "tokens": tokens.tolist(), "segment_length": SEGMENT_LENGTH, "losses": results}
    (folder / "expected.json").write_text(json.dumps(expected))
    # The path of the temporary folder is in it, and nothing else of interest.
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-1"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
    )
    print(f"{sum(file.stat().st_size for file in folder.iterdir()):8,d} bytes  {folder.name}")


def main() -> None:
    """Writes every case."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/oracles/write_original_tf.py PATH_TO_CHECKOUT")
    model, data_utils = import_authors_code(Path(sys.argv[1]))
    # Their mean over the segment would hide a loss that stands at the wrong token.
    model.mask_adaptive_logsoftmax = functools.partial(model.mask_adaptive_logsoftmax, return_mean=False)
    for name, changes in CASES.items():
        write_case(model, data_utils, name, BASE | changes)


if __name__ == "__main__":
    main()
