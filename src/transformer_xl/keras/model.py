"""The model without a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from transformer_xl.keras.outputs import KerasTransfoXLModelOutput
from transformer_xl.keras.pretrained import KerasTransfoXLPreTrainedModel


@keras.saving.register_keras_serializable("transformer_xl")
class KerasTransfoXLModel(KerasTransfoXLPreTrainedModel):
    """Transformer-XL without a head: token ids and memory in, hidden states and memory out.

    Example:
        >>> model = KerasTransfoXLModel(config)
        >>> first = model(input_ids)                      # [B, T]
        >>> second = model(more_ids, mems=first.mems)     # attends to what came before
    """

    output_class = KerasTransfoXLModelOutput

    def call(
        self,
        input_ids: Any = None,
        mems: Sequence[Any] | None = None,
        head_mask: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        *,
        attention_mask: Any = None,
        use_cache: bool | None = None,
    ) -> Any:
        """Read one segment.

        Args:
            input_ids: Token ids [B, T]; or all inputs as a list, tuple or dict.
            mems: What an earlier call returned, one tensor [M, B, D] for each layer; None at the beginning of a text.
            head_mask: [H] or [L, H]; 1 keeps a head, 0 silences it.
            inputs_embeds: Embeddings [B, T, D] instead of ids; they are not scaled.
            output_attentions: Whether to return the attention weights.
            output_hidden_states: Whether to return the hidden states of all layers.
            return_dict: Whether to return named fields rather than a tuple.
            training: Whether dropout is active.
            attention_mask: 1 for tokens, 0 for padding: [B, T] for the segment or [B, M + T] for memory and segment.
                Padding may stand on either side; a padded row gives what the row alone gives.
            use_cache: Whether to return the memory.

        Returns:
            `KerasTransfoXLModelOutput`, or a tuple of its fields that are not None.
        """
        if isinstance(input_ids, Mapping | list | tuple):
            return self.call(**{"training": training, **self.named_inputs(input_ids)})
        reading = self.read(input_ids, mems, head_mask, inputs_embeds, attention_mask, output_attentions, training)
        return self.result(
            reading,
            output_attentions,
            output_hidden_states,
            return_dict,
            use_cache,
            last_hidden_state=reading.hidden,
        )
