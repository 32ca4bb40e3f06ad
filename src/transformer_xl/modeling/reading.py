"""A text read segment by segment, with what was read carried along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.memory import TransfoXLCache, reset
from transformer_xl.modeling.outputs import TransfoXLLMHeadModelOutput


class Reader:
    """What a model needs to go on with a text: a cache where there can be one, else its memory. For inference.

    Args:
        model: The model that reads.
        mems: A memory to go on from; None for the beginning of a text.
        rereads: Whether each segment begins with the last `ext_len` tokens of the one before, which the memory leaves
            out and a cache does not.

    Example:
        >>> reader = Reader(model)
        >>> for segment in ids.split(128, dim=1):
        ...     output = reader.read(segment, logits_to_keep=1)
    """

    def __init__(
        self, model: TransfoXLLMHeadModel, mems: Sequence[Tensor] | None = None, rereads: bool = False
    ) -> None:
        self.model = model
        self.mems = mems
        self.cache: TransfoXLCache | None = None
        if model.transformer.has_cache and not rereads:
            self.cache, self.mems = model.new_cache(mems), None

    def read(self, input_ids: Tensor, **asked: Any) -> TransfoXLLMHeadModelOutput:
        """Read one segment [B, T] after what was read before; `asked` goes to the model's `forward`."""
        output = self.model(input_ids, **self._past(), **asked)
        self.mems = output.mems
        return output

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """Read one segment [B, T] and return only what the softmax would get, [B, T, D]."""
        output = self.model.transformer(input_ids, **self._past())
        self.mems = output.mems
        return output.last_hidden_state

    def losses(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Read one segment [B, T] and return the negative log-likelihood of each target in nats, [B, T].

        Args:
            input_ids: The segment.
            targets: The token after each position; -100 for none, whose loss is 0.
        """
        return cast(Tensor, self.read(input_ids, shift_labels=targets).losses)

    def fork(self) -> Reader:
        """Return a reader of the same past that goes its own way."""
        other = Reader(self.model, self.mems)
        if self.cache is not None:
            other.cache = self.cache.clone()
        return other

    def _past(self) -> dict[str, Any]:
        return {"mems": self.mems, "past_key_values": self.cache, "return_dict": True, "use_cache": True}

    def reset(self, rows: Tensor) -> None:
        """Bring the chosen rows of the batch, boolean [B], back to the beginning of a text."""
        if self.cache is not None:
            self.cache.reset_rows(rows)
        elif self.mems is not None:
            self.mems = reset(self.mems, rows)

    def state(self) -> dict[str, Tensor]:
        """Return all that was kept of the past, by name, as tensors that a file can hold."""
        if self.cache is not None:
            return self.cache.state()
        return {f"mems.{i}": layer for i, layer in enumerate(self.mems or ())}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up the past that `state()` of a reader of the same model returned."""
        if self.cache is not None:
            self.cache.load_state(state)
        elif state:
            self.mems = [state[f"mems.{i}"] for i in range(len(state))]
