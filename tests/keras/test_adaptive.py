"""The adaptive layers: the public embedding, and a loss whose memory is bounded."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from transformer_xl.keras import cross_entropy
from transformer_xl.keras.adaptive import KerasAdaptiveEmbedding
from transformer_xl.keras.cross_entropy import selected_losses
from transformer_xl.keras.heads import KerasTransfoXLLMHeadModel

from .chain import GradientSum, assert_equal_numbers, small_config


def test_the_embedding_has_the_arguments_of_transformers_4_and_a_configuration() -> None:
    embedding = KerasAdaptiveEmbedding(100, 16, 32, [10, 40], 2, 0.02, False)
    ids = np.array([[3, 99], [10, 39]])
    assert embedding(ids).shape == (2, 2, 32)
    again = KerasAdaptiveEmbedding.from_config(embedding.get_config())
    again.build(None)
    again.set_weights(embedding.get_weights())
    assert_equal_numbers(again(ids), embedding(ids), "embeddings")


@pytest.mark.parametrize("div_val", [1, 2])
def test_the_embedding_is_a_layer_of_functional_models(div_val: int) -> None:
    inputs = keras.Input((None,), dtype="int32")
    embedding = KerasAdaptiveEmbedding(100, 16, 32, [10, 40], div_val)
    model = keras.Model(inputs, embedding(inputs))
    ids = np.array([[3, 99, 39]])
    assert_equal_numbers(model(ids), embedding(ids), "embeddings")


@pytest.mark.parametrize("div_val", [1, 2])
def test_the_likeliest_token_is_that_of_all_and_no_band_is_computed_in_vain(
    div_val: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(1)
    model = KerasTransfoXLLMHeadModel(small_config(div_val=div_val, init_std=0.6))
    crit, embedding = model.crit, model.transformer.word_emb
    hidden = np.random.default_rng(0).standard_normal((200, model.config.d_model)).astype("float32")
    expected = ops.argmax(crit(hidden, embedding=embedding), axis=-1)
    bands = {int(i) for i in np.digitize(ops.convert_to_numpy(expected), model.config.cutoffs)}
    assert bands == set(range(len(crit.bands))), "rows whose likeliest token is common, and rows where it is rare"
    assert_equal_numbers(crit.likeliest(hidden, embedding), expected, "tokens")
    crit.cluster_bias.assign(np.full(crit.cluster_bias.shape, -100.0))
    computed = []
    band_logits = crit.band_logits
    monkeypatch.setattr(crit, "band_logits", lambda i, *rest: computed.append(i) or band_logits(i, *rest))
    crit.likeliest(hidden, embedding)
    if keras.config.backend() == "torch":
        assert computed == [0], "other backends look at all branches and run one"


class Losses(keras.Model):
    """The losses of some rows, with all three arguments as weights."""

    def __init__(
        self, arrays: dict[str, np.ndarray], selected: np.ndarray, columns: np.ndarray, in_blocks: bool
    ) -> None:
        super().__init__()
        self.selected, self.columns, self.in_blocks = selected, columns, in_blocks
        self.parts = {
            name: self.add_weight(shape=array.shape, initializer=lambda *_, array=array, **__: array, name=name)
            for name, array in arrays.items()
        }
        self.built = True

    def call(self, inputs: Any) -> Any:
        hidden, weight, bias = (ops.cast(self.parts[name], "float32") for name in ("hidden", "weight", "bias"))
        selected = ops.convert_to_tensor(self.selected)
        columns = ops.convert_to_tensor(self.columns)
        if self.in_blocks:
            return selected_losses(hidden, weight, bias, columns, selected)
        scores = ops.matmul(hidden, ops.transpose(weight)) + bias
        picked = ops.take_along_axis(scores, ops.clip(columns, 0, scores.shape[1] - 1)[:, None], axis=1)[:, 0]
        return ops.where(selected, ops.logsumexp(scores, axis=-1) - picked, 0.0)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        # Weighted, so that each row's gradient has a part of its own.
        return ops.sum(y_pred * (1.0 + ops.arange(y_pred.shape[0], dtype="float32")))


@pytest.mark.parametrize("num_selected", [0, 1, 9, 23])
def test_the_loss_in_blocks_is_the_plain_loss_forward_and_backward(
    num_selected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "LARGEST_BLOCK", 7 * 11)  # blocks of 7 rows
    numbers = np.random.default_rng(0)
    arrays = {"hidden": (23, 5), "weight": (11, 5), "bias": (11,)}
    arrays = {name: numbers.standard_normal(shape).astype("float32") for name, shape in arrays.items()}
    selected = np.isin(np.arange(23), numbers.permutation(23)[:num_selected])
    columns = np.where(selected, numbers.integers(0, 11, 23), -100).astype("int32")
    results = []
    for in_blocks in (True, False):
        model = Losses(arrays, selected, columns, in_blocks)
        losses = ops.convert_to_numpy(model(np.zeros(1)))
        model.compile(GradientSum())
        model.train_on_batch(np.zeros(1))
        results.append([losses, *(model.optimizer.of(model.parts[name]) for name in sorted(model.parts))])
    for ours, plain in zip(*results, strict=True):
        assert_equal_numbers(ours, plain, "losses and gradients")


def test_no_array_is_as_large_as_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    matmul = ops.matmul

    def recorded(*arguments: Any) -> Any:
        result = matmul(*arguments)
        sizes.append(int(np.prod(result.shape)))
        return result

    monkeypatch.setattr(cross_entropy.ops, "matmul", recorded)
    monkeypatch.setattr(cross_entropy, "LARGEST_BLOCK", 4000)
    arrays = {"hidden": (64, 4), "weight": (1000, 4), "bias": (1000,)}
    arrays = {name: np.ones(shape, "float32") for name, shape in arrays.items()}
    model = Losses(arrays, np.ones(64, bool), np.arange(64, dtype="int32"), in_blocks=True)
    model.compile(GradientSum())
    model.train_on_batch(np.zeros(1))
    assert len(sizes) >= 4, "forward and backward"
    assert max(sizes) <= 4000


@pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX tells what a compiled function needs")
def test_a_compiled_gradient_needs_a_fraction_of_all_scores() -> None:
    import jax

    num_rows, num_columns, width = 4096, 20000, 8
    arrays = [
        jax.ShapeDtypeStruct(shape, "float32") for shape in ((num_rows, width), (num_columns, width), (num_columns,))
    ]
    integers, booleans = jax.ShapeDtypeStruct((num_rows,), "int32"), jax.ShapeDtypeStruct((num_rows,), "bool")

    def loss(hidden: Any, weight: Any, bias: Any, columns: Any, selected: Any) -> Any:
        return selected_losses(hidden, weight, bias, columns, selected).sum()

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays, integers, booleans).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < num_rows * num_columns * 4 / 4
