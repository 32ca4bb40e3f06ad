"""The Keras classes on TensorFlow and JAX, the TensorFlow classes of transformers 4.36.2, and our PyTorch classes.

    python -m venv /tmp/old && /tmp/old/bin/pip install transformers==4.36.2 tensorflow-cpu==2.15.1 'numpy<2' sacremoses
    python benchmarks/keras_twin.py --old /tmp/old/bin/python [--size wt103-base] [--runs 5]

Each side is a process of its own with the same weights and inputs, and the sides take turns. What they compute is
compared before anything is timed: scores, loss, a gradient and greedy tokens. The old classes cannot train under XLA
and have no `generate` that runs, so theirs is a loop over their forward pass. `decode` is one token through the whole
model on hidden memories, as all can be called; `writing` is eight tokens the way each side goes on generating, ours on
kept keys and values. The last line is JSON, which also goes to a dated file in `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-4
NEW_TOKENS = 33  # one with the prompt, and four compiled steps of eight
MIXTURE = {"mem_len": 128, "d_model": 256, "d_embed": 256, "n_head": 4, "d_head": 64, "d_inner": 1024, "n_layer": 6}
SHARED = {"div_val": 4, "clamp_len": -1, "same_length": False, "dropout": 0.0, "init_std": 0.05, "proj_init_std": 0.05}
SIZES: dict[str, dict[str, Any]] = {
    "small": {**SHARED, **MIXTURE, "vocab_size": 10000, "cutoffs": [1000, 4000], "tgt_len": 64},
    # The old classes have no div_val 1, and the widths of its bands must divide: 384 instead of 410.
    "wt103-base": {
        **SHARED,
        **{"vocab_size": 267735, "cutoffs": [20000, 40000, 200000], "d_model": 410, "d_embed": 384, "n_head": 10},
        **{"d_head": 41, "d_inner": 2100, "n_layer": 16, "mem_len": 150, "tgt_len": 150},
    },
}
SIDES = {
    "old TensorFlow eager": ("old", "tensorflow"),
    "old TensorFlow graph": ("old", "tensorflow"),
    "old TensorFlow XLA": ("old", "tensorflow"),
    "PyTorch eager": ("ours", "torch"),
    "Keras TensorFlow graph": ("ours", "tensorflow"),
    "Keras TensorFlow XLA": ("ours", "tensorflow"),
    "Keras JAX jit": ("ours", "jax"),
}
TASKS = ("forward", "decode", "training", "generation", "writing")


class Side:
    """One implementation with a model and inputs; each task returns the numbers by which it is compared."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.mode = mode
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        inputs = np.load(folder / "inputs.npz")
        self.ids, self.labels, self.mems = inputs["ids"], inputs["labels"], list(inputs["mems"])
        self.token, self.token_mems = self.ids[:1, :1], [layer[:, :1] for layer in self.mems]
        self.prompt = self.ids[:1, :4]
        self.prepare()

    def prepare(self) -> None:
        raise NotImplementedError

    def scores(self, ids: np.ndarray, mems: list[np.ndarray]) -> Any:
        raise NotImplementedError

    def loss_and_gradient(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def generated(self) -> np.ndarray:
        raise NotImplementedError

    def written(self) -> np.ndarray:
        """The eight tokens after those of the latest `generated`."""
        raise NotImplementedError

    def forward(self) -> list[float]:
        return digest(self.scores(self.ids, self.mems))

    def decode(self) -> list[float]:
        return digest(self.scores(self.token, self.token_mems))

    def training(self) -> list[float]:
        loss, gradient = self.loss_and_gradient()
        return [float(loss), float(np.sqrt((np.asarray(gradient) ** 2).sum()))]

    def generation(self) -> list[float]:
        return [float(token) for token in np.asarray(self.generated())[0]]

    def writing(self) -> list[float]:
        return [float(token) for token in np.asarray(self.written())[0]]


def digest(scores: Any) -> list[float]:
    """Numbers that follow from all scores of the last position."""
    last = np.asarray(scores)[0, -1]
    return [float(last.mean()), float(last.std()), float(last[0]), float(last[-1])]


class OldTensorFlow(Side):
    def prepare(self) -> None:
        import tensorflow as tf
        from safetensors.numpy import load_file
        from transformers import TFTransfoXLLMHeadModel, TransfoXLConfig
        from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

        self.tf = tf
        model = TFTransfoXLLMHeadModel(TransfoXLConfig.from_pretrained(self.folder))
        model(self.token)
        weights = load_file(self.folder / "model.safetensors")
        for i in range(len(self.config["cutoffs"]) + 1):
            weights[f"crit.out_layers.{i}.weight"] = weights[f"transformer.word_emb.emb_layers.{i}.weight"]
            projection = weights[f"transformer.word_emb.emb_projs.{i}"]
            weights.setdefault(f"crit.out_projs.{i}", projection)
        model, report = load_pytorch_state_dict_in_tf2_model(
            model, weights, tf_inputs=False, allow_missing_keys=True, output_loading_info=True
        )
        assert not report["missing_keys"], report
        self.model = model

        def scores(ids: Any, mems: Any) -> Any:
            return model([ids, list(mems)]).prediction_scores

        def loss_and_gradient(ids: Any, mems: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                model([ids, list(mems)], labels=labels, training=True)
                loss = tf.add_n(model.losses)
            weight = next(w for w in model.trainable_weights if "layers_._0/dec_attn/qkv_net/kernel" in w.name)
            gradients = tape.gradient(loss, model.trainable_weights)
            by_name = {w.name: gradient for w, gradient in zip(model.trainable_weights, gradients, strict=True)}
            # All gradients take part, or a compiler would leave them out.
            return loss, by_name[weight.name], [tf.reduce_sum(g) for g in gradients if g is not None]

        compiled = {} if self.mode == "eager" else {"jit_compile": self.mode == "XLA"}
        self.scores_function = tf.function(scores, **compiled) if compiled else scores
        self.training_function = tf.function(loss_and_gradient, **compiled) if compiled else loss_and_gradient

        def step(ids: Any, mems: Any) -> Any:
            output = model([ids, list(mems)])
            token = tf.argmax(output.prediction_scores[:, -1:], axis=-1, output_type=tf.int32)
            return token, output.mems

        self.step = tf.function(step, **compiled) if compiled else step

    def scores(self, ids: np.ndarray, mems: list[np.ndarray]) -> Any:
        return self.scores_function(ids, mems).numpy()

    def loss_and_gradient(self) -> tuple[Any, Any]:
        loss, gradient, _ = self.training_function(self.ids, self.mems, self.labels)
        return loss.numpy(), gradient.numpy()

    def generated(self) -> np.ndarray:
        self.output = self.step(self.prompt, self.model.transformer.init_mems(1))
        return np.concatenate([self.prompt, self._go_on(NEW_TOKENS)], axis=1)

    def written(self) -> np.ndarray:
        return self._go_on(8)

    def _go_on(self, num_tokens: int) -> np.ndarray:
        tokens = []
        for _ in range(num_tokens):
            token, mems = self.output
            tokens.append(token.numpy())
            self.output = self.step(token, mems)
        return np.concatenate(tokens, axis=1)


class PyTorch(Side):
    def prepare(self) -> None:
        import torch

        from transformer_xl import TransfoXLLMHeadModel

        self.torch = torch
        self.model = TransfoXLLMHeadModel.from_pretrained(self.folder).eval()

    def scores(self, ids: np.ndarray, mems: list[np.ndarray]) -> Any:
        with self.torch.inference_mode():
            return self.model(self.torch.tensor(ids).long(), [self.torch.tensor(m) for m in mems]).logits.numpy()

    def loss_and_gradient(self) -> tuple[Any, Any]:
        mems = [self.torch.tensor(layer) for layer in self.mems]
        labels = self.torch.tensor(self.labels).long()
        self.model.zero_grad()
        loss = self.model(self.torch.tensor(self.ids).long(), mems, shift_labels=labels).loss
        loss.backward()
        return loss.item(), self.model.transformer.layers[0].dec_attn.qkv_net.weight.grad.numpy()

    def generated(self) -> np.ndarray:
        prompt = self.torch.tensor(self.prompt).long()
        settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None}
        output = self.model.generate(prompt, **settings, return_dict_in_generate=True)
        self.last, self.cache = output.sequences[:, -1:], output.past_key_values
        return output.sequences.numpy()

    def written(self) -> np.ndarray:
        tokens = []
        with self.torch.inference_mode():
            for _ in range(8):
                logits = self.model(self.last, past_key_values=self.cache, logits_to_keep=1).logits
                self.last = logits.argmax(-1)
                tokens.append(self.last)
        return self.torch.cat(tokens, dim=1).numpy()


class KerasTwin(Side):
    def prepare(self) -> None:
        import keras

        from transformer_xl.keras import KerasTransfoXLLMHeadModel

        self.model = KerasTransfoXLLMHeadModel.from_pretrained(self.folder)
        if keras.config.backend() == "jax":
            self._compile_with_jax()
        else:
            self._compile_with_tensorflow()

    def _compile_with_tensorflow(self) -> None:
        import tensorflow as tf

        model, kernel = self.model, self.model.transformer.layers[0].dec_attn.qkv_net.kernel

        def loss_and_gradient(ids: Any, mems: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = model(ids, mems=list(mems), shift_labels=labels, training=True).loss
            gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
            place = next(i for i, variable in enumerate(model.trainable_variables) if variable is kernel)
            return loss, gradients[place], [tf.reduce_sum(gradient) for gradient in gradients]

        compiled = {"jit_compile": self.mode == "XLA"}
        self.scores_function = tf.function(lambda ids, mems: model(ids, mems=list(mems)).logits, **compiled)
        self.training_function = tf.function(loss_and_gradient, **compiled)

    def _compile_with_jax(self) -> None:
        import jax

        model, kernel = self.model, self.model.transformer.layers[0].dec_attn.qkv_net.kernel
        trainable = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        place = next(i for i, variable in enumerate(model.trainable_variables) if variable is kernel)

        def loss(weights: Any, ids: Any, mems: Any, labels: Any) -> Any:
            return model.stateless_call(weights, others, ids, mems=mems, shift_labels=labels, training=True)[0].loss

        forward = jax.jit(lambda weights, ids, mems: model.stateless_call(weights, others, ids, mems=mems)[0].logits)
        backward = jax.jit(jax.value_and_grad(loss))
        self.scores_function = lambda ids, mems: forward(trainable, ids, mems)

        def loss_and_gradient(ids: Any, mems: Any, labels: Any) -> Any:
            value, gradients = jax.block_until_ready(backward(trainable, ids, mems, labels))
            return value, gradients[place], gradients

        self.training_function = loss_and_gradient

    def scores(self, ids: np.ndarray, mems: list[np.ndarray]) -> Any:
        return np.asarray(self.scores_function(ids, mems))

    def loss_and_gradient(self) -> tuple[Any, Any]:
        loss, gradient, _ = self.training_function(self.ids, self.mems, self.labels)
        return np.asarray(loss), np.asarray(gradient)

    def generated(self) -> np.ndarray:
        return self.model.generate(self.prompt, max_new_tokens=NEW_TOKENS)

    def written(self) -> np.ndarray:
        from transformer_xl.keras.generation import Sampling, Settings

        settings = Settings(8, 0.0, 0, 1.0, None, None)
        writer = self.model.writers.get(self.model, 1, Sampling(draws=False, top_k=0, has_top_p=False))
        return writer.predict_on_batch(settings.scalars(None))


def serve(name: str, folder: Path) -> None:
    """Run tasks by name, a line each; answer with the seconds and the numbers."""
    kind = {"old": OldTensorFlow, "PyTorch": PyTorch, "Keras": KerasTwin}[name.split()[0]]
    side = kind(name.split()[-1], folder)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        begun = time.perf_counter()
        try:
            answer = {"numbers": getattr(side, line.strip())()}
        except Exception as error:  # the old classes fail in some tasks, which is a result
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
        print(json.dumps({"seconds": time.perf_counter() - begun, **answer}), file=answers, flush=True)


def ask(process: subprocess.Popen[str], task: str) -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    process.stdin.write(task + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def begin(name: str, old: str, folder: Path, threads: int) -> subprocess.Popen[str]:
    where, backend = SIDES[name]
    environment = {
        **os.environ,
        **{"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"},
        **{"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
    }
    python = old if where == "old" else sys.executable
    return subprocess.Popen(
        [python, "-W", "ignore", __file__, "--side", name, "--folder", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def write_model(size: dict[str, Any], batch_size: int, folder: Path) -> None:
    """Leave the same random weights and inputs for all sides."""
    import torch

    from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel

    torch.manual_seed(0)
    config = TransfoXLConfig(**size, eos_token_id=None)
    TransfoXLLMHeadModel(config).save_pretrained(folder)
    numbers = np.random.default_rng(0)
    shape = (batch_size, config.tgt_len)
    # Zipf's law, as in a text: frequent tokens come first in the vocabulary.
    draw = lambda: np.minimum(numbers.zipf(1.2, shape), config.vocab_size - 1).astype("int32")  # noqa: E731
    mems = numbers.standard_normal((config.n_layer, config.mem_len, batch_size, config.d_model)).astype("float32")
    np.savez(folder / "inputs.npz", ids=draw(), labels=draw(), mems=mems)


def measure(processes: dict[str, subprocess.Popen[str]], task: str, runs: int) -> dict[str, Any]:
    """Compare what the sides compute, then time them in turns."""
    first = {name: ask(process, task) for name, process in processes.items()}
    able = {name: answer for name, answer in first.items() if "error" not in answer}
    expected = np.array(able["PyTorch eager"]["numbers"])
    for name, answer in able.items():
        difference = np.abs(np.array(answer["numbers"]) - expected).max()
        if difference > TOLERANCE * np.abs(expected).max():
            raise SystemExit(
                f"{task}: {name} gives {answer['numbers']}, PyTorch {expected.tolist()}; nothing was timed"
            )
    seconds: dict[str, list[float]] = {name: [] for name in able}
    for _ in range(runs):
        for name, taken in seconds.items():
            taken.append(ask(processes[name], task)["seconds"])
    errors = {name: answer["error"] for name, answer in first.items() if "error" in answer}
    return {
        "milliseconds": {name: round(1e3 * min(taken), 2) for name, taken in seconds.items()},
        "medians": {name: round(1e3 * float(np.median(taken)), 2) for name, taken in seconds.items()},
        "errors": errors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", help="Python with transformers 4.36.2 and TensorFlow 2.15")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_model(SIZES[options.size], options.batch_size, Path(temporary))
        processes = {name: begin(name, options.old, Path(temporary), options.threads) for name in SIDES}
        figures = {task: measure(processes, task, options.runs) for task in TASKS}
        for process in processes.values():
            process.communicate()
    for task, result in figures.items():
        best = min(value for name, value in result["milliseconds"].items() if name.startswith("old"))
        print(f"\n{task} (milliseconds, shortest and median of {options.runs}; {NEW_TOKENS} tokens in generation)")
        for name, value in result["milliseconds"].items():
            print(f"  {name:26} {value:10,.1f} {result['medians'][name]:10,.1f}   {best / value:6.2f} x the old best")
        for name, error in result["errors"].items():
            print(f"  {name:26} {error}")
    summary = {"size": options.size, "batch_size": options.batch_size, "threads": options.threads, "figures": figures}
    stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stamp}-keras-twin-{options.size}.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
