"""What a run will take before it is begun: parameters, operations, memory, hours."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from transformer_xl.data.corpus import encode_corpus, is_corpus, open_corpus
from transformer_xl.data.datasets import KNOWN_SETS
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.text.tokenizer_vocabulary import load_vocabulary
from transformer_xl.training.fresh_model import fresh_config
from transformer_xl.training.settings import RunSettings, TextSettings

FLOAT_BYTES = 4
# Numbers that an optimiser keeps for each weight.
OPTIMIZER_STATES = {"adamw": 2, "adam": 2, "muon": 2, "sgd": 1, "adagrad": 1}
# The share of the rate of large matrix products that a training step is assumed to reach.
ASSUMED_SHARE = 0.4
MEASURED_WIDTH = 1024
MEASURED_SECONDS = 0.5


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        num_symbols: Symbols V of the vocabulary.
        num_parameters: Parameters of the model; what is tied counts once.
        operations: Floating-point operations of one training step, forward and backward, a multiplication and an
            addition counted as two.
        fixed_bytes: Weights, gradients and what the optimiser keeps, in float32.
        step_bytes: About what one step of all streams keeps for its backward pass, the memory included, in float32.
        steps: Steps of the run; None if it is given minutes instead.
    """

    num_symbols: int
    num_parameters: int
    operations: float
    fixed_bytes: float
    step_bytes: float
    steps: int | None

    def hours(self, rate: float) -> float | None:
        """The hours of all steps at `rate` operations per second; None if the run is given minutes."""
        return None if self.steps is None else self.steps * self.operations / rate / 3600


def estimate(settings: RunSettings, num_symbols: int | None = None) -> Estimate:
    """The estimate of a run, whose model is not built; its symbols are counted unless they are given.

    Raises:
        ValueError: The settings contradict each other or the vocabulary.
        FileNotFoundError: The symbols of a text must be counted, and it is not there.
    """
    training, ext_len = settings.training, settings.text.ext_len
    num_symbols = count_symbols(settings.text) if num_symbols is None else num_symbols
    config = fresh_config(settings.model, num_symbols, training.segment_length, ext_len)
    with torch.device("meta"):
        num_parameters = TransfoXLLMHeadModel(config).num_parameters()
    sizes = (training.batch_size, training.segment_length, ext_len)
    return Estimate(
        num_symbols,
        num_parameters,
        3 * forward_operations(config, *sizes),
        num_parameters * FLOAT_BYTES * (2 + OPTIMIZER_STATES[training.optimizer]),
        FLOAT_BYTES * _kept_numbers(config, *sizes),
        training.steps if training.minutes is None else None,
    )


def count_symbols(text: TextSettings) -> int:
    """The size of the vocabulary that a text will get: known, or counted by reading the text."""
    if text.vocabulary is not None:
        return len(load_vocabulary(text.vocabulary))
    if text.unit == "byte":
        return 256
    if text.unit == "bpe":
        return 8_000 if text.vocab_size is None else text.vocab_size
    if text.dataset is not None:
        return KNOWN_SETS[text.dataset].num_symbols + (text.unit == "char")
    assert text.train is not None
    if Path(text.train).is_dir() and is_corpus(text.train):
        return len(open_corpus(text.train).vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        return len(encode_corpus(text, Path(folder, "corpus")).vocabulary)


def forward_operations(config: TransfoXLConfig, batch_size: int, segment_length: int, ext_len: int = 0) -> float:
    """The floating-point operations of one forward pass with targets, when the memory is full.

    Words are taken to be as frequent as Zipf's law has them, which decides how often the rare bands are computed.
    """
    queries = batch_size * (segment_length + ext_len)
    keys_per_row = config.mem_len + segment_length + ext_len
    keys = batch_size * keys_per_row
    attended = config.n_head * config.d_head
    projections = config.d_model * attended * (2 * queries + 2 * keys + keys_per_row)
    scores = 3 * attended * queries * keys_per_row
    feed_forward = 2 * config.d_model * config.d_inner * queries
    layers = config.n_layer * (projections + scores + feed_forward)
    return 2 * (layers + queries * _embedding(config) + batch_size * segment_length * _softmax(config))


def _embedding(config: TransfoXLConfig) -> float:
    """Multiplications for each token on its way in; every band is looked up for every token."""
    if config.div_val == 1:
        return config.d_embed * config.d_model if config.d_embed != config.d_model else 0
    return sum(band.width * config.d_model for band in config.bands)


def _softmax(config: TransfoXLConfig) -> float:
    """Multiplications for each target."""
    projected = config.div_val > 1 or config.d_embed != config.d_model
    columns = [band.size for band in config.bands]
    columns[0] += len(columns) - 1
    return sum(
        share * band.width * (size + config.d_model * projected)
        for share, band, size in zip(_shares(config), config.bands, columns, strict=True)
    )


def _shares(config: TransfoXLConfig) -> Iterator[float]:
    """The share of the targets for which each band is computed: the first always, the others by Zipf's law."""
    for i, band in enumerate(config.bands):
        yield 1.0 if i == 0 else math.log((band.stop + 1) / (band.start + 1)) / math.log(config.vocab_size + 1)


def _kept_numbers(config: TransfoXLConfig, batch_size: int, segment_length: int, ext_len: int) -> float:
    """About how many numbers a step keeps: what each block puts in and out, scores, weights, memory, logits."""
    queries = batch_size * (segment_length + ext_len)
    keys_per_row = config.mem_len + segment_length + ext_len
    attended = config.n_head * config.d_head
    hidden = queries * (6 * config.d_model + 2 * attended + 2 * config.d_inner)
    context = batch_size * keys_per_row * (config.d_model + 2 * attended)
    weights = 2 * config.n_head * queries * keys_per_row
    memory = batch_size * config.mem_len * config.d_model
    logits = 2 * batch_size * segment_length * config.bands[0].size
    return config.n_layer * (hidden + context + weights + memory) + logits


def matrix_product_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """The floating-point operations per second of large matrix products, measured for half a second."""
    left, right = torch.randn(2, MEASURED_WIDTH, MEASURED_WIDTH, device=device, dtype=dtype)
    left @ right
    _wait(device)
    products, began = 0, time.perf_counter()
    while time.perf_counter() - began < MEASURED_SECONDS:
        left @ right
        _wait(device)
        products += 1
    return products * 2 * MEASURED_WIDTH**3 / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
