"""Adapt a trained model to another text by LoRA: MODEL TEXT OUT [STEPS]; MODEL is a folder that training wrote."""

from __future__ import annotations

import sys

from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from transformer_xl import Lanes, MemoryTrainer
from transformer_xl.data.corpus import read_text
from transformer_xl.evaluation import Protocol, evaluate
from transformer_xl.training.run_folder import load_run

MODEL, TEXT, OUT = sys.argv[1:4]
STEPS, LANES = int(sys.argv[4]) if len(sys.argv) > 4 else 500, 8

model, vocabulary = load_run(MODEL)
ids = vocabulary.encode(read_text(TEXT))
border = len(ids) * 9 // 10
protocol = Protocol(model.config.tgt_len, model.config.mem_len)
print("before:", evaluate(model, ids[border:], protocol))

adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["qkv_net", "o_net"]))
adapted.print_trainable_parameters()
arguments = TrainingArguments(
    OUT, max_steps=STEPS, per_device_train_batch_size=LANES, learning_rate=2e-3, lr_scheduler_type="cosine",
    logging_steps=max(1, STEPS // 10), save_strategy="no", report_to=[],
)  # fmt: skip
MemoryTrainer(adapted, arguments, train_dataset=Lanes(ids[:border], LANES, model.config.tgt_len)).train()
adapted.save_pretrained(OUT)  # the adapter alone; PeftModel.from_pretrained(model, OUT) puts it on again
merged = adapted.merge_and_unload()
print("after: ", evaluate(merged, ids[border:], protocol))
