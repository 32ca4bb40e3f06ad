"""Where a text ends by what it says, for tokenizers of any vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StoppingCriteria


class StopStrings(StoppingCriteria):
    """Ends each row of a batch whose newest token completes one of some strings, for `generate()`.

    The criterion of transformers spells a made-up word by the tokenizer's tokens, which fails where words or events are
    the tokens; this one reads the end of the text instead.

    Args:
        strings: One string, or several.
        tokenizer: Turns ids into text.

    Raises:
        ValueError: A string is empty.
    """

    def __init__(self, strings: str | Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        if not self.strings or not all(self.strings):
            raise ValueError(f"stop_strings is {strings!r}, but must be one string or several, none of them empty")
        self.tokenizer = tokenizer
        # No token is shorter than a byte.
        self.longest = max(len(string.encode()) for string in self.strings)

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Return which rows of the token ids [B, T] end here, boolean [B]; the scores are not looked at."""
        ended = [self._ends(row) for row in input_ids[:, -self.longest - 1 :]]
        return torch.tensor(ended, device=input_ids.device)

    def _ends(self, row: Tensor) -> bool:
        text, before = self._text(row), self._text(row[:-1])
        return any(text.count(string) > before.count(string) for string in self.strings)

    def _text(self, row: Tensor) -> str:
        text = self.tokenizer.decode(row, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
