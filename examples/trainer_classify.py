"""Sort texts into classes with the Trainer of transformers: TRAIN TEST [EPOCHS], files of `LABEL text` lines."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from transformer_xl import TransfoXLConfig, TransfoXLForSequenceClassification
from transformer_xl.text.units import word_tokenizer

train, test = ([line.split(" ", 1) for line in Path(name).read_text().splitlines()] for name in sys.argv[1:3])
EPOCHS = float(sys.argv[3]) if len(sys.argv) > 3 else 4

names = sorted({label for label, _ in train})
tokenizer = word_tokenizer((text for _, text in train), min_count=2)
tokenizer.add_special_tokens({"pad_token": "<pad>"})
examples = [
    [{**tokenizer(text), "label": names.index(label)} for label, text in lines] for lines in (train, test)
]  # fmt: skip
config = TransfoXLConfig(
    vocab_size=len(tokenizer), cutoffs=[], div_val=1, d_model=128, d_embed=128, n_head=4, d_head=32, d_inner=256,
    n_layer=2, mem_len=0, clamp_len=-1, same_length=False, pre_lnorm=True, dropout=0.3, eos_token_id=None,
    pad_token_id=tokenizer.pad_token_id, initial_memory="empty", id2label=dict(enumerate(names)),
)  # fmt: skip
arguments = TrainingArguments(
    "classifier", num_train_epochs=EPOCHS, per_device_train_batch_size=32, per_device_eval_batch_size=128,
    learning_rate=1e-3, weight_decay=0.1, train_sampling_strategy="group_by_length", eval_strategy="epoch",
    save_strategy="no", report_to=[],
)  # fmt: skip
trainer = Trainer(
    TransfoXLForSequenceClassification(config), arguments, DataCollatorWithPadding(tokenizer), *examples,
    compute_metrics=lambda answer: {"accuracy": (np.argmax(answer.predictions, -1) == answer.label_ids).mean()},
)  # fmt: skip
trainer.train()
print(f"accuracy on {len(test)} other texts:", trainer.evaluate()["eval_accuracy"])
