"""Training and measuring by the methods of Keras, in every form of input."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from transformer_xl.keras.heads import KerasTransfoXLForSequenceClassification, KerasTransfoXLLMHeadModel

from .chain import assert_equal_numbers, random_ids, small_config

IDS = random_ids(8, 6)
CLASSES = IDS[:, 0] % 3
# Compilation has tests of its own; running as it stands is faster where a model is used once.
RUN_EAGERLY = keras.config.backend() == "tensorflow"
pytestmark = pytest.mark.filterwarnings("ignore:.*requires_grad=True")


def language_model(**fields: Any) -> Any:
    keras.utils.set_random_seed(1)
    return KerasTransfoXLLMHeadModel(small_config(), **fields)


def fit(model: Any, *data: Any, **compiled: Any) -> dict[str, list[float]]:
    """Two batches in order."""
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=RUN_EAGERLY, **compiled)
    return model.fit(*data, batch_size=4, shuffle=False, verbose=0).history


def test_labels_train_alike_in_the_inputs_as_targets_and_shifted_for_a_compiled_loss() -> None:
    inside = fit(language_model(), {"input_ids": IDS, "labels": IDS})
    targets = fit(language_model(), IDS, IDS)
    named = fit(language_model(), {"input_ids": IDS}, {"labels": IDS})
    in_a_list = fit(language_model(), [IDS], IDS)
    compiled = fit(
        language_model(),
        IDS[:, :-1],
        IDS[:, 1:],
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    assert 0 <= compiled["accuracy"][0] <= 1
    for history in (targets, named, in_a_list, compiled):
        np.testing.assert_allclose(history["loss"], inside["loss"], rtol=1e-5)


class Batches(keras.utils.PyDataset):
    """Two batches with labels as targets."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rows = IDS[4 * number : 4 * number + 4]
        return {"input_ids": rows}, rows


def dataset_of_the_backend() -> Any:
    """The same batches as the framework below Keras hands them out; NumPy's on JAX, which has none."""
    if keras.config.backend() == "tensorflow":
        import tensorflow

        return tensorflow.data.Dataset.from_tensor_slices(({"input_ids": IDS}, IDS)).batch(4)
    if keras.config.backend() == "torch":
        from torch.utils.data import DataLoader

        return DataLoader([({"input_ids": row}, row) for row in IDS], batch_size=4)
    return Batches()


def test_fit_evaluate_and_predict_take_data_in_every_form() -> None:
    model = language_model()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=RUN_EAGERLY)
    first, second = model(IDS[:4], labels=IDS[:4]).loss, model(IDS[4:], labels=IDS[4:]).loss
    expected = ops.convert_to_numpy(first + second) / 2
    for data, count in [
        ({"x": IDS, "y": IDS, "batch_size": 4}, {}),
        ({"x": [IDS], "y": IDS, "batch_size": 4}, {}),
        ({"x": (IDS,), "y": IDS, "batch_size": 4}, {}),
        ({"x": {"input_ids": IDS}, "y": {"labels": IDS}, "batch_size": 4}, {}),
        ({"x": {"input_ids": IDS, "labels": IDS}, "batch_size": 4}, {}),
        ({"x": Batches()}, {}),
        ({"x": dataset_of_the_backend()}, {}),
        ({"x": lambda: iter(Batches())}, {"steps": 2}),
    ]:
        forms = [{**data, "x": data["x"]() if callable(data["x"]) else data["x"]} for _ in range(2)]
        steps = {"steps_per_epoch": count["steps"]} if count else {}
        fitted = model.fit(**forms[0], **steps, shuffle=False, verbose=0).history["loss"][0]
        np.testing.assert_allclose(fitted, expected, rtol=1e-5)
        np.testing.assert_allclose(model.evaluate(**forms[1], **count, verbose=0), expected, rtol=1e-5)
    scores = model(IDS).logits
    for data in (IDS, [IDS], {"input_ids": IDS}):
        assert_equal_numbers(model.predict(data, batch_size=4, verbose=0).logits, scores, "scores")


def test_a_loss_on_other_rows_is_measured_beside_training() -> None:
    model = language_model()
    expected = ops.convert_to_numpy(model(IDS[:4], labels=IDS[:4]).loss)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=RUN_EAGERLY)
    history = model.fit(IDS, IDS, batch_size=8, validation_data=(IDS[:4], IDS[:4]), verbose=0).history
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-5)


def test_predict_gives_scores_of_all_batches_and_no_memory() -> None:
    model = language_model()
    output = model.predict(IDS, batch_size=4, verbose=0)
    assert list(output) == ["prediction_scores"]
    assert_equal_numbers(output.logits, model(IDS).logits, "scores")


def test_nothing_to_learn_from_is_an_error_on_every_backend() -> None:
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(language_model(), IDS)


def test_metrics_without_scores_are_an_error() -> None:
    with pytest.raises(ValueError, match="Metrics need scores"):
        fit(language_model(), IDS, IDS, metrics=["accuracy"])


def test_a_classifier_learns_from_targets_and_from_labels() -> None:
    def classifier() -> Any:
        keras.utils.set_random_seed(1)
        return KerasTransfoXLForSequenceClassification(small_config(num_labels=3, pad_token_id=0))

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compiled = fit(classifier(), IDS, CLASSES, loss=loss, metrics=["accuracy"])
    targets = fit(classifier(), {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}, CLASSES)
    assert "accuracy" in compiled
    np.testing.assert_allclose(targets["loss"], compiled["loss"], rtol=1e-5)
    assert classifier().predict(IDS, verbose=0).logits.shape == (8, 3)


def test_a_stateful_model_goes_on_where_the_batch_before_ended() -> None:
    stateful, model = language_model(stateful_batch_size=4), language_model()
    first = model(IDS[:4])
    second = model(IDS[4:], mems=first.mems)
    stateful(IDS[:4])
    assert_equal_numbers(stateful(IDS[4:]).logits, second.logits, "scores")
    stateful.reset_state()
    assert_equal_numbers(stateful(IDS[:4]).logits, first.logits, "scores")


def test_fit_keeps_the_memory_of_a_stateful_model() -> None:
    stateful, model = language_model(stateful_batch_size=4), language_model()
    stateful.compile(keras.optimizers.SGD(0.0))
    loss = stateful.fit(IDS, IDS, batch_size=4, shuffle=False, verbose=0).history["loss"][0]
    first = model(IDS[:4], labels=IDS[:4])
    second = model(IDS[4:], labels=IDS[4:], mems=first.mems)
    expected = ops.convert_to_numpy(first.loss + second.loss) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert_equal_numbers(stateful.memory, ops.stack(second.mems), "memory")


def test_memory_may_be_passed_in_while_training() -> None:
    model = language_model()
    model.compile(keras.optimizers.SGD(0.0))
    mems = model(IDS[:4]).mems
    expected = ops.convert_to_numpy(model(IDS[4:], labels=IDS[4:], mems=mems).loss)
    mems = [ops.convert_to_numpy(layer) for layer in mems]
    batch = {"input_ids": IDS[4:], "labels": IDS[4:], "mems": mems}
    np.testing.assert_allclose(model.train_on_batch(batch), expected, rtol=1e-5)
    # TensorFlow takes a list in a dataset for one tensor.
    batch["mems"] = tuple(mems)
    generated = model.fit(((batch,) for _ in range(2)), steps_per_epoch=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(generated, expected, rtol=1e-5)


@pytest.mark.skipif(keras.config.backend() == "torch", reason="PyTorch has no XLA here")
def test_forward_and_backward_compile_under_xla() -> None:
    compiled, eager = language_model(), language_model()
    compiled.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    losses = [compiled.train_on_batch(IDS[:4], IDS[:4]) for _ in range(2)]
    eager.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    np.testing.assert_allclose(losses, [eager.train_on_batch(IDS[:4], IDS[:4]) for _ in range(2)], rtol=1e-5)


def test_a_stateful_model_tells_of_batches_of_another_size() -> None:
    with pytest.raises(ValueError, match="keeps the memory of 4"):
        language_model(stateful_batch_size=4)(IDS)
    with pytest.raises(ValueError, match="keeps no memory"):
        language_model().reset_state()


def test_mixed_precision_computes_in_bfloat16_and_keeps_losses_in_float32() -> None:
    model = language_model(dtype="mixed_bfloat16")
    output = model(IDS, labels=IDS)
    assert keras.backend.standardize_dtype(output.mems[0].dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(output.losses.dtype) == "float32"
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    expected = ops.convert_to_numpy(language_model()(IDS, labels=IDS).loss)
    np.testing.assert_allclose(ops.convert_to_numpy(output.loss), expected, rtol=0.02)
    losses = fit(model, IDS, IDS)["loss"]
    assert np.isfinite(losses).all()
