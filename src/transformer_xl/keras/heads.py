"""What is put on top of the model: next-token prediction with `generate()`, and classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from transformer_xl.keras.adaptive import IGNORED_LABEL, AdaptiveLogSoftmax
from transformer_xl.keras.export import export_saved_model
from transformer_xl.keras.generation import Settings, Writers, write
from transformer_xl.keras.noise import Noise, weight_noise
from transformer_xl.keras.outputs import (
    KerasTransfoXLLMHeadModelOutput,
    KerasTransfoXLSequenceClassifierOutputWithPast,
)
from transformer_xl.keras.padding import last_tokens
from transformer_xl.keras.pretrained import KerasTransfoXLPreTrainedModel


@keras.saving.register_keras_serializable("transformer_xl")
class KerasTransfoXLLMHeadModel(KerasTransfoXLPreTrainedModel):
    """Transformer-XL that predicts the next token, with an adaptive softmax tied to its embedding as configured.

    Example:
        >>> model = KerasTransfoXLLMHeadModel(config)
        >>> out = model(input_ids, labels=input_ids)      # labels are shifted inside
        >>> out.loss, out.losses.shape                    # nats per token; [B, T - 1]
        >>> model.generate(input_ids, max_new_tokens=20)
    """

    output_class = KerasTransfoXLLMHeadModelOutput
    head_name = "crit"

    def create_head(self) -> None:
        """Create the adaptive softmax."""
        config = self.config
        self.writers = Writers()
        self.crit = AdaptiveLogSoftmax(
            config.bands,
            config.d_model,
            config.div_val,
            config.tie_word_embeddings,
            config.tie_projs,
            weight_noise(config),
            Noise(config.proj_init_std),
            dtype=self.dtype_policy,
            name="crit",
        )

    def build_head(self) -> None:
        """Create the weights of the adaptive softmax."""
        self.crit.build((None, None))

    def tied_weights(self) -> dict[str, str]:
        """Return the ties of the body, and of outputs to inputs."""
        ties = super().tied_weights()
        embedding = self.transformer.word_emb
        if self.crit.tie_weights:
            for i in range(len(embedding.emb_layers)):
                ties[f"crit.out_layers.{i}.weight"] = f"transformer.word_emb.emb_layers.{i}.weight"
        if self.crit.projected:
            for i, tied in enumerate(self.crit.tie_projections):
                if tied:
                    last = len(embedding.emb_projs) - 1
                    ties[f"crit.out_projs.{i}"] = f"transformer.word_emb.emb_projs.{min(i, last)}"
        return ties

    def call(
        self,
        input_ids: Any = None,
        mems: Sequence[Any] | None = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool | None = None,
        *,
        attention_mask: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        shift_labels: Any = None,
    ) -> Any:
        """Read one segment and predict, or score, the token after each position.

        The arguments of `KerasTransfoXLModel.call`, and:

        Args:
            labels: Token ids [B, T], -100 to leave one out. They are shifted inside, so `labels=input_ids` is right;
                the last position, whose next token lies in the next segment, is not scored.
            logits_to_keep: For how many of the last positions to return scores, 0 for all. By default for all without
                labels and for none with them.
            shift_labels: Labels that are shifted already [B, T]: the token after each position.

        Returns:
            `KerasTransfoXLLMHeadModelOutput`, or a tuple of its fields that are not None.
        """
        if isinstance(input_ids, Mapping | list | tuple):
            return self.call(**{"training": training, **self.named_inputs(input_ids)})
        if labels is not None and shift_labels is not None:
            raise ValueError("Give either labels, which are shifted inside, or shift_labels, which are not; not both.")
        reading = self.read(input_ids, mems, head_mask, inputs_embeds, attention_mask, output_attentions, training)
        losses = loss = prediction_scores = None
        if labels is not None:
            losses, loss = self._token_losses(reading.hidden[:, :-1], self._checked("labels", labels, reading)[:, 1:])
        if shift_labels is not None:
            losses, loss = self._token_losses(reading.hidden, self._checked("shift_labels", shift_labels, reading))
        if logits_to_keep is not None or loss is None:
            kept = reading.hidden[:, -logits_to_keep:] if logits_to_keep else reading.hidden
            prediction_scores = self.crit(kept, embedding=self.transformer.word_emb)
        return self.result(
            reading,
            output_attentions,
            output_hidden_states,
            return_dict,
            use_cache,
            loss=loss,
            losses=losses,
            prediction_scores=prediction_scores,
        )

    def generate(
        self,
        input_ids: Any,
        *,
        max_new_tokens: int = 20,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        eos_token_id: int | None = None,
        attention_mask: Any = None,
        mems: Sequence[Any] | None = None,
    ) -> np.ndarray:
        """Return prompts with their continuations, whole numbers [B, T + N].

        A step is compiled once for each batch size and way of choosing, whatever the prompt and the number of tokens.

        Args:
            input_ids: Prompts [B, T].
            max_new_tokens: Number of tokens N to write at most.
            temperature: 0 always takes the likeliest token; smaller is more careful, 1 is what the model believes.
            top_k: Draw from the k likeliest tokens only; 0 for all.
            top_p: Draw from the likeliest tokens that together reach this probability only.
            seed: Makes the drawing repeatable.
            eos_token_id: Token after which a row has ended; the rest of it is padding. By default no row ends.
            attention_mask: 1 for tokens, 0 for padding of shorter prompts, [B, T].
            mems: What was read before the prompts.

        Raises:
            ValueError: A number is out of range.
        """
        settings = Settings(max_new_tokens, temperature, top_k, top_p, seed, eos_token_id)
        return write(self, self.writers, input_ids, settings, attention_mask, mems)

    def export_saved_model(self, folder: str | Path) -> None:
        """Write a TensorFlow SavedModel with two functions of ids [B, T] and mems [L, M, B, D].

        Both return `prediction_scores` and `mems`: `score` takes segments of any length, `step` takes one token.

        Raises:
            ValueError: Keras runs on PyTorch, or the model has no memory.

        Example:
            >>> model.export_saved_model("exported")
            >>> step = tf.saved_model.load("exported").step
            >>> out = step(input_ids[:, :1], np.zeros((n_layer, mem_len, 1, d_model), "float32"))
        """
        export_saved_model(self, folder)

    def _checked(self, name: str, labels: Any, reading: Any) -> Any:
        given, wanted = tuple(labels.shape), tuple(reading.hidden.shape[:2])
        if len(given) != 2 or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(given, wanted, strict=True)
        ):
            raise ValueError(
                f"{name} has the shape {given}, but the segment has {wanted}: give one label for each token."
            )
        return ops.cast(labels, "int32")

    def _token_losses(self, hidden: Any, labels: Any) -> tuple[Any, Any]:
        """Return the loss of each label [B, T] and their mean."""
        flat = ops.reshape(hidden, (-1, self.config.d_model))
        losses = self.crit(flat, embedding=self.transformer.word_emb, labels=ops.reshape(labels, (-1,)))
        losses = ops.reshape(losses, ops.shape(labels))
        count = ops.sum(ops.cast(labels != IGNORED_LABEL, "float32"))
        return losses, ops.sum(losses) / ops.maximum(count, 1.0)


@keras.saving.register_keras_serializable("transformer_xl")
class KerasTransfoXLForSequenceClassification(KerasTransfoXLPreTrainedModel):
    """Transformer-XL that sorts texts into classes by the hidden state of each row's last token.

    The last token is the last one that `attention_mask` does not mask, else the last one that is not
    `config.pad_token_id`, else the last position. Padding may stand on either side.
    """

    output_class = KerasTransfoXLSequenceClassifierOutputWithPast
    head_name = "score"

    def create_head(self) -> None:
        """Create the layer that scores the classes."""
        self.score = keras.layers.Dense(
            self.config.num_labels,
            use_bias=False,
            kernel_initializer=weight_noise(self.config),
            dtype=self.dtype_policy,
            name="score",
        )

    def build_head(self) -> None:
        """Create the weight of the scores."""
        self.score.build((None, self.config.d_model))

    def call(
        self,
        input_ids: Any = None,
        mems: Sequence[Any] | None = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool | None = None,
        *,
        attention_mask: Any = None,
        use_cache: bool | None = None,
    ) -> Any:
        """Read one segment and classify each row.

        The arguments of `KerasTransfoXLModel.call`, and:

        Args:
            labels: Class of each row [B]; numbers [B] or [B, number of labels] for regression; 0 or 1 for each label
                [B, number of labels] for multi-label classification. `config.problem_type` says which; if it is None,
                one label means regression, whole numbers single-label and others multi-label classification.

        Returns:
            `KerasTransfoXLSequenceClassifierOutputWithPast`, or a tuple of its fields that are not None.
        """
        if isinstance(input_ids, Mapping | list | tuple):
            return self.call(**{"training": training, **self.named_inputs(input_ids)})
        reading = self.read(input_ids, mems, head_mask, inputs_embeds, attention_mask, output_attentions, training)
        hidden = reading.hidden[:, -1]
        if attention_mask is not None:
            is_token = ops.cast(attention_mask[:, -ops.shape(reading.hidden)[1] :], "bool")
            hidden = _at(reading.hidden, last_tokens(is_token))
        elif input_ids is not None and self.config.pad_token_id is not None:
            hidden = _at(reading.hidden, last_tokens(ops.cast(input_ids, "int32") != self.config.pad_token_id))
        logits = self.score(hidden)
        return self.result(
            reading,
            output_attentions,
            output_hidden_states,
            return_dict,
            use_cache,
            loss=None
            if labels is None
            else self._class_loss(ops.cast(logits, "float32"), ops.convert_to_tensor(labels)),
            logits=logits,
        )

    def _class_loss(self, logits: Any, labels: Any) -> Any:
        problem = self.config.problem_type
        if problem is None:
            whole = "int" in keras.backend.standardize_dtype(labels.dtype)
            problem = "single_label_classification" if whole else "multi_label_classification"
            problem = "regression" if self.config.num_labels == 1 else problem
        if problem == "single_label_classification":
            labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
            return ops.mean(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True))
        labels = ops.reshape(ops.cast(labels, "float32"), ops.shape(logits))
        if problem == "regression":
            return ops.mean(ops.square(logits - labels))
        return ops.mean(ops.binary_crossentropy(labels, logits, from_logits=True))


def _at(hidden: Any, positions: Any) -> Any:
    """Return one position of each row of [B, T, D], [B, D]."""
    return ops.take_along_axis(hidden, positions[:, None, None], axis=1)[:, 0]
