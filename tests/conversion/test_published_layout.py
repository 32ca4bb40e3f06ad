"""A folder that is laid out like the published `transfo-xl-wt103`, with all its 267,735 words, works as it lies there.

The published files cannot be had here. The vocabulary is pickled as theirs is, the widths of the model are tiny.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig

NUM_WORDS = 267_735
# The fields of the published config.json, their sizes made tiny.
CONFIG = {
    "adaptive": True,
    "architectures": ["TransfoXLLMHeadModel"],
    "attn_type": 0,
    "clamp_len": 1000,
    "cutoffs": [20000, 40000, 200000],
    "d_embed": 64,
    "d_head": 4,
    "d_inner": 16,
    "d_model": 8,
    "div_val": 4,
    "dropatt": 0.0,
    "dropout": 0.1,
    "eos_token_id": 0,
    "ext_len": 0,
    "init": "normal",
    "init_range": 0.01,
    "init_std": 0.02,
    "layer_norm_epsilon": 1e-05,
    "mem_len": 16,
    "model_type": "transfo-xl",
    "n_head": 2,
    "n_layer": 2,
    "pre_lnorm": False,
    "proj_init_std": 0.01,
    "same_length": True,
    "sample_softmax": -1,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 250}},
    "tgt_len": 128,
    "tie_projs": [False, True, True, True],
    "tie_weight": True,
    "untie_r": True,
    "vocab_size": NUM_WORDS,
}
# The examples of the documentation of transformers 4.37.2, with one import more.
EXAMPLE = """
import transformer_xl
from transformer_xl import TransfoXLForSequenceClassification, TransfoXLLMHeadModel, TransfoXLModel
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("transfo-xl-wt103")
model = TransfoXLModel.from_pretrained("transfo-xl-wt103")
inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
outputs = model(**inputs)
last_hidden_states = outputs.last_hidden_state
assert last_hidden_states.shape == (1, 6, 8), last_hidden_states.shape

model = TransfoXLLMHeadModel.from_pretrained("transfo-xl-wt103")
outputs = model(**inputs, labels=inputs["input_ids"])
loss = outputs.loss
logits = outputs.logits
assert loss.isfinite()

model = TransfoXLForSequenceClassification.from_pretrained("transfo-xl-wt103")
with torch.no_grad():
    logits = model(**inputs).logits
predicted_class_id = logits.argmax().item()
num_labels = len(model.config.id2label)
model = TransfoXLForSequenceClassification.from_pretrained("transfo-xl-wt103", num_labels=num_labels)
labels = torch.tensor([1])
loss = model(**inputs, labels=labels).loss
assert loss.isfinite()

assert type(AutoModel.from_pretrained("transfo-xl-wt103")).__name__ == "TransfoXLModel"
assert type(AutoModelForCausalLM.from_pretrained("transfo-xl-wt103")).__name__ == "TransfoXLLMHeadModel"
print(tokenizer.vocab_size, tokenizer.decode(inputs["input_ids"][0]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("published")
    folder = parent / "transfo-xl-wt103"
    folder.mkdir()
    words = ["<eos>", "the", ",", ".", "<unk>", "Hello", "my", "dog", "is", "cute"]
    words += [f"word{i}" for i in range(NUM_WORDS - len(words))]
    vocabulary = {
        "counter": Counter({word: NUM_WORDS - i for i, word in enumerate(words)}),
        "special": ["<eos>"],
        "min_freq": 0,
        "max_size": None,
        "lower_case": False,
        "delimiter": None,
        "vocab_file": None,
        "never_split": [],
        "idx2sym": words,
        "eos_idx": 0,
        "sym2idx": OrderedDict((word, i) for i, word in enumerate(words)),
    }
    with (folder / "vocab.pkl").open("wb") as file:
        pickle.dump(vocabulary, file, protocol=2)
    torch.save(vocabulary, folder / "vocab.bin", _use_new_zipfile_serialization=False)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    state = TransfoXLLMHeadModel(TransfoXLConfig(**CONFIG)).state_dict()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return folder


def test_the_examples_of_the_documentation_run(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", EXAMPLE], cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{NUM_WORDS} Hello, my dog is cute"
