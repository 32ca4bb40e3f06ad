"""A language model as a TensorFlow SavedModel: scoring of segments, and one step of writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import ops


def export_saved_model(model: Any, folder: str | Path) -> None:
    """Write the SavedModel of a language model; see `KerasTransfoXLLMHeadModel.export_saved_model`.

    Raises:
        ValueError: Keras runs on PyTorch, or the model has no memory.
    """
    if keras.config.backend() == "torch":
        raise ValueError("A SavedModel cannot be written from PyTorch: set KERAS_BACKEND to tensorflow or jax.")
    config, length = model.config, model.transformer.mem_len
    if length == 0:
        raise ValueError("mem_len=0 leaves no memory to pass from step to step: set mem_len to export the model.")

    def read(input_ids: Any, mems: Any) -> dict[str, Any]:
        output = model(input_ids, mems=ops.unstack(mems, num=config.n_layer, axis=0))
        return {"prediction_scores": output.prediction_scores, "mems": ops.stack(output.mems)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, num_tokens in (("score", None), ("step", 1)):
        signature = [
            keras.InputSpec(shape=(None, num_tokens), dtype="int32"),
            keras.InputSpec(shape=(config.n_layer, length, None, config.d_model), dtype="float32"),
        ]
        options = {}
        if keras.config.backend() == "jax":
            # By itself Keras takes the first axis of every input for the batch.
            ids = "(b, t)" if num_tokens is None else f"(b, {num_tokens})"
            options["jax2tf_kwargs"] = {
                "polymorphic_shapes": [ids, f"({config.n_layer}, {length}, b, {config.d_model})"]
            }
        archive.add_endpoint(name, read, input_signature=signature, **options)
    archive.write_out(str(folder), verbose=False)
