"""Train on a text with the Trainer of transformers, the memory carried along, then write: FILE OUT [STEPS]."""

from __future__ import annotations

import sys

from transformers import TrainingArguments

from transformer_xl import Lanes, MemoryTrainer, TransfoXLConfig, TransfoXLLMHeadModel
from transformer_xl.data.corpus import encode_corpus
from transformer_xl.data.text_settings import TextSettings
from transformer_xl.generation import generate_text

SOURCE, OUT, STEPS = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2000
LANES, SEGMENT = 8, 64

corpus = encode_corpus(TextSettings(SOURCE, unit="char"), f"{OUT}/corpus")
config = TransfoXLConfig(
    vocab_size=len(corpus.vocabulary), cutoffs=[], div_val=1, d_model=128, d_embed=128, n_head=4, d_head=32,
    d_inner=256, n_layer=4, mem_len=SEGMENT, clamp_len=-1, same_length=False, pre_lnorm=True, dropout=0.0,
    initial_memory="empty", eos_token_id=None, tgt_len=SEGMENT,
)  # fmt: skip
model = TransfoXLLMHeadModel(config)
arguments = TrainingArguments(
    OUT, max_steps=STEPS, per_device_train_batch_size=LANES, per_device_eval_batch_size=LANES, learning_rate=3e-3,
    lr_scheduler_type="cosine", warmup_steps=STEPS // 20, weight_decay=0.1, eval_strategy="steps",
    eval_steps=max(1, STEPS // 4), logging_steps=max(1, STEPS // 20), prediction_loss_only=True, report_to=[],
)  # fmt: skip
lanes = [Lanes(ids, LANES, SEGMENT) for ids in (corpus.train, corpus.valid)]
trainer = MemoryTrainer(model, arguments, train_dataset=lanes[0], eval_dataset=lanes[1])
trainer.train()
print("validation loss in nats per character:", trainer.evaluate()["eval_loss"])
trainer.save_model(OUT)
corpus.vocabulary.save(OUT)
print("".join(generate_text(model.eval(), corpus.vocabulary, "\n", 200, temperature=0.8, seed=1)))
