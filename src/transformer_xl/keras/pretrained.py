"""What all models share: call forms, folders, training without a compiled loss, memory that is kept between batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import keras
from keras import ops

from transformer_xl.keras import folder
from transformer_xl.keras.body import Reading, TransformerXL
from transformer_xl.keras.calls import named_arguments
from transformer_xl.keras.noise import silence
from transformer_xl.keras.outputs import NamedFields
from transformer_xl.pretrained_config import TransfoXLConfig


class KerasTransfoXLPreTrainedModel(keras.Model):
    """What all Transformer-XL models in Keras can do.

    Args:
        config: What defines the model.
        stateful_batch_size: If given, the model keeps its memory from one batch of this size to the next, in `fit`,
            `evaluate` and calls without `mems`; row i of a batch goes on where row i of the one before ended.
            `reset_state()` begins anew.
        kwargs: `name`, `dtype` and `trainable` of Keras.

    Raises:
        ValueError: The configuration asks for something that only the PyTorch classes have.
    """

    output_class: type[NamedFields]
    head_name: str | None = None
    """Name in the files of what stands on top of the body."""

    def __init__(self, config: TransfoXLConfig, stateful_batch_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if config.sample_softmax > 0:
            raise ValueError(
                f"sample_softmax={config.sample_softmax} is not available: set sample_softmax=-1 for the exact softmax."
            )
        if stateful_batch_size is not None and config.mem_len == 0:
            raise ValueError("mem_len=0 leaves nothing to keep: set mem_len, or leave stateful_batch_size out.")
        self.config = config
        self.stateful_batch_size = stateful_batch_size
        self.transformer = TransformerXL(config, dtype=self.dtype_policy, name="transformer")
        self.create_head()
        self.build((None, None))

    def create_head(self) -> None:
        """Create the layers that stand on top of the body."""

    def build_head(self) -> None:
        """Create the weights of the head."""

    def build(self, input_shape: Any) -> None:
        """Create all weights, so that they exist before the first call."""
        self.transformer.build((None, None))
        self.build_head()
        if self.stateful_batch_size is not None:
            config = self.config
            self.memory = self.add_weight(
                shape=(config.n_layer, config.mem_len, self.stateful_batch_size, config.d_model),
                initializer="zeros",
                trainable=False,
                autocast=False,
                name="memory",
            )

    def reset_state(self) -> None:
        """Begin a new text in every row of a model that keeps its memory.

        Raises:
            ValueError: The model keeps no memory.
        """
        if self.stateful_batch_size is None:
            raise ValueError(
                "This model keeps no memory: build it with stateful_batch_size, or pass mems from call to call."
            )
        self.memory.assign(ops.zeros(self.memory.shape, self.memory.dtype))

    def tied_weights(self) -> dict[str, str]:
        """Return further names in the files (key) of weights (value)."""
        if self.config.untie_r:
            return {}
        return {
            f"transformer.layers.{i}.dec_attn.{name}": f"transformer.{name}"
            for i in range(self.config.n_layer)
            for name in ("r_w_bias", "r_r_bias")
        }

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: TransfoXLConfig | None = None,
        dtype: Any = None,
        name: str | None = None,
        stateful_batch_size: int | None = None,
        **config_fields: Any,
    ) -> Self:
        """Return the model of a folder or of a repository on the hub, whichever framework wrote it.

        Args:
            pretrained_model_name_or_path: What holds `config.json` and `model.safetensors`.
            config: Configuration to use instead of the folder's.
            dtype: Policy of Keras, such as "mixed_bfloat16".
            name: Name of the model in Keras.
            stateful_batch_size: See the class.
            config_fields: Fields of the configuration to change.

        Raises:
            ValueError: Weights are missing, unexpected or of another shape; all are listed.
            FileNotFoundError: There is no `model.safetensors`.
        """
        if config is None:
            config = TransfoXLConfig.from_pretrained(pretrained_model_name_or_path, **config_fields)
        weights = folder.read_weights(pretrained_model_name_or_path)
        with silence() if folder.has_head(cls.head_name, weights) else nullcontext():
            model = cls(config, stateful_batch_size, dtype=dtype, name=name)
        folder.load_weights(model, weights)
        return model

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, which the PyTorch classes and transformers 4 read as well."""
        folder.save(self, Path(save_directory))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` builds the same model from."""
        return {
            "config": self.config.to_dict(),
            "stateful_batch_size": self.stateful_batch_size,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Return the model that `get_config` described."""
        arguments = dict(config)
        arguments["dtype"] = keras.dtype_policies.deserialize(arguments["dtype"])
        return cls(TransfoXLConfig.from_dict(arguments.pop("config")), **arguments)

    @classmethod
    def argument_names(cls) -> list[str]:
        """Return what the model may be called with, in order; from `attention_mask` on by name only."""
        return [name for name in inspect.signature(cls.call).parameters if name != "self"]

    def __call__(self, input_ids: Any = None, *others: Any, **keywords: Any) -> Any:
        """Take the inputs in any of their forms; see `call`."""
        return super().__call__(**self.named_inputs(input_ids, others), **keywords)

    def named_inputs(self, first: Any, others: Sequence[Any] = ()) -> dict[str, Any]:
        """Return inputs in any of their forms by name."""
        names = self.argument_names()
        return named_arguments(names, names.index("attention_mask"), first, others)

    def read(
        self,
        input_ids: Any,
        mems: Sequence[Any] | None,
        head_mask: Any,
        inputs_embeds: Any,
        attention_mask: Any,
        output_attentions: bool | None,
        training: bool | None,
    ) -> Reading:
        """Return what the body makes of a segment, on the kept memory if the model keeps one and none is given."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, and not both.")
        keeps_memory = self.stateful_batch_size is not None and mems is None
        if keeps_memory:
            self._check_batch_size((inputs_embeds if input_ids is None else input_ids).shape[0])
            mems = ops.unstack(ops.convert_to_tensor(self.memory), axis=0)
        reading = self.transformer(
            input_ids=input_ids,
            mems=mems,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            need_weights=bool(self._setting("output_attentions", output_attentions)),
            training=training,
        )
        if keeps_memory:
            self.memory.assign(ops.cast(ops.stack(reading.mems), self.memory.dtype))
        return reading

    def _check_batch_size(self, batch_size: Any) -> None:
        if isinstance(batch_size, int) and batch_size != self.stateful_batch_size:
            raise ValueError(
                f"This batch has {batch_size} rows, but the model keeps the memory of {self.stateful_batch_size}: give "
                "batches of that size, and leave an incomplete one out."
            )

    def _setting(self, name: str, value: Any) -> Any:
        """Return an argument, or what the configuration says where it is None."""
        return getattr(self.config, name) if value is None else value

    def result(
        self,
        reading: Reading,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        use_cache: bool | None,
        **fields: Any,
    ) -> Any:
        """Return `fields` and what was asked for beside them, as named fields or as a tuple."""
        output = self.output_class(
            **fields,
            mems=reading.mems if self._setting("use_cache", use_cache) else None,
            hidden_states=reading.hidden_states
            if self._setting("output_hidden_states", output_hidden_states)
            else None,
            attentions=reading.attentions if self._setting("output_attentions", output_attentions) else None,
        )
        return output if self._setting("return_dict", return_dict) else output.to_tuple()

    def train_step(self, *state_and_data: Any) -> Any:
        """Train on one batch; without a compiled loss, targets are labels."""
        *state, data = state_and_data
        return super().train_step(*state, self._with_labels(data))

    def test_step(self, *state_and_data: Any) -> Any:
        """Measure one batch; without a compiled loss, targets are labels."""
        *state, data = state_and_data
        return super().test_step(*state, self._with_labels(data))

    def predict_step(self, *state_and_data: Any) -> Any:
        """Return the outputs for one batch without memories, which Keras would join along the wrong axis."""
        result = super().predict_step(*state_and_data)
        if isinstance(result, NamedFields):
            return _without_memory(result)
        output, *state = result
        return (_without_memory(output), *state)

    def _with_labels(self, data: Any) -> Any:
        inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.loss is not None or targets is None:
            return data
        if isinstance(targets, Mapping):
            targets = targets["labels"]
        inputs = {**self.named_inputs(inputs), "labels": targets}
        return keras.utils.pack_x_y_sample_weight(inputs, targets, sample_weight)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the compiled loss of the scores, or without one the model's own loss.

        Raises:
            ValueError: There are neither a compiled loss nor labels.
        """
        if self.loss is not None:
            return super().compute_loss(x, y, scores(y_pred), sample_weight, training)
        if sample_weight is not None:
            raise ValueError("sample_weight needs a compiled loss: use compile(loss=...), or -100 in the labels.")
        if y_pred.loss is None:
            raise ValueError(
                "There is nothing to learn from: give labels in the inputs, targets, or compile(loss=...)."
            )
        return sum(self.losses, y_pred.loss)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Return the metrics of the scores.

        Raises:
            ValueError: The scores were not computed, because labels gave the loss.
        """
        predicted = scores(y_pred)
        if predicted is None and len(self.metrics) > 1:
            raise ValueError(
                "Metrics need scores, which labels leave out: use compile(loss=...) with the token after each position "
                "as target."
            )
        return super().compute_metrics(x, y, predicted, sample_weight)


def scores(output: NamedFields) -> Any:
    """Return the scores of tokens or classes among the outputs of a model, or None."""
    return output.get("prediction_scores", output.get("logits"))


def _without_memory(output: NamedFields) -> NamedFields:
    return type(output)((name, value) for name, value in output.items() if name != "mems")
