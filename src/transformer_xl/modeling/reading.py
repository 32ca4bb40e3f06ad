"""A text read segment by segment, with what was read carried along."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self, cast

from torch import Tensor

from transformer_xl.modeling import memory
from transformer_xl.modeling.heads import LONGEST_SEGMENT, TransfoXLLMHeadModel
from transformer_xl.modeling.layer_by_layer import read_layer_by_layer
from transformer_xl.modeling.memory import TransfoXLCache
from transformer_xl.modeling.outputs import TransfoXLLMHeadModelOutput

# A segment is long if it is so many memories long, and longer than those into which a text is cut otherwise.
LONG = 2


def tokens_at_once(model: TransfoXLLMHeadModel, num_tokens: int) -> int:
    """Return in segments of which length a text of so many tokens is best read.

    With `same_length`, where no token can tell how a text is cut, long segments take the least room.
    """
    body = model.transformer
    long = LONG * body.mem_len
    if body.same_length and body.attn_type == 0 and num_tokens >= long > LONGEST_SEGMENT:
        return long
    return model.longest_segment


class Reader:
    """What a model needs to go on with a text: a cache where there can be one, else its memory. For inference.

    Long segments are read layer by layer, on the memory itself, which takes as long and less than half of the room.

    Args:
        model: The model that reads.
        segment_length: How many tokens T the segments will have, if that is known.
        rereads: Whether each segment begins with the last `ext_len` tokens of the one before, which the memory leaves
            out and a cache does not.

    Example:
        >>> reader = Reader(model)
        >>> for segment in ids.split(128, dim=1):
        ...     output = reader.read(segment, logits_to_keep=1)
    """

    def __init__(self, model: TransfoXLLMHeadModel, segment_length: int = 1, rereads: bool = False) -> None:
        self.model = model
        self.mems: Sequence[Tensor] | None = None
        self.cache: TransfoXLCache | None = None
        body = model.transformer
        has_cache = body.has_cache and not rereads
        is_long = segment_length > LONGEST_SEGMENT and segment_length >= LONG * body.mem_len
        self.layer_by_layer = has_cache and is_long and body.attn_type == 0
        if has_cache and not self.layer_by_layer:
            self.cache = model.new_cache()

    def read(self, input_ids: Tensor, **asked: Any) -> TransfoXLLMHeadModelOutput:
        """Read one segment [B, T] after what was read before; `asked` goes to the model's `forward`."""
        output = self.model(input_ids, **self._past(), **asked)
        self.mems = output.mems
        return output

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """Read one segment [B, T] and return only what the softmax would get, [B, T, D]."""
        body = self.model.transformer
        if self.layer_by_layer:
            if self.mems is None:
                weight = next(body.word_emb.parameters())
                # In one piece, beside which the C library does not lay what comes and goes.
                self.mems = weight.new_zeros(body.n_layer, body.mem_len, len(input_ids), body.config.d_model).unbind()
            return read_layer_by_layer(body, input_ids, self.mems)
        output = body(input_ids, **self._past())
        self.mems = output.mems
        return output.last_hidden_state

    def losses(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Read one segment [B, T] and return the negative log-likelihood of each target in nats, [B, T].

        Args:
            input_ids: The segment.
            targets: The token after each position; -100 for none, whose loss is 0.
        """
        hidden = self.hidden_states(input_ids)
        return cast(Tensor, self.model.crit(hidden.flatten(0, 1), targets.flatten())).view(targets.shape)

    def fork(self) -> Self:
        """Return a reader of the same past that goes its own way."""
        other = copy.copy(self)
        if self.cache is not None:
            other.cache = self.cache.clone()
        if self.mems is not None:
            other.mems = [layer.clone() for layer in self.mems]
        return other

    def _past(self) -> dict[str, Any]:
        return {"mems": self.mems, "past_key_values": self.cache, "return_dict": True, "use_cache": True}

    def reset(self, rows: Tensor) -> None:
        """Bring the chosen rows of the batch, boolean [B], back to the beginning of a text."""
        if self.cache is not None:
            self.cache.reset_rows(rows)
        elif self.mems is not None:
            self.mems = memory.reset(self.mems, rows)

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
