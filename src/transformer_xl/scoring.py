"""What each token of a text costs a model, for texts of any length, many at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from transformer_xl.modeling.adaptive import IGNORED_LABEL
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.reading import Reader, tokens_at_once
from transformer_xl.text.counts import TextCounts
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary
from transformer_xl.text.vocabulary import Vocabulary


class Encoder(Protocol):
    """What turns text into ids: a `Vocabulary`, or a tokenizer of transformers."""

    def encode(self, text: str) -> Sequence[int] | npt.NDArray[np.integer]:
        """Return the ids of a text."""


Document = str | Sequence[int] | npt.NDArray[np.integer] | Tensor


@dataclass(frozen=True)
class DocumentScore:
    """What a document costs a model.

    Attributes:
        losses: Negative log-likelihood of each token in nats, float32 [N], in order. The first is NaN if nothing was
            read before it.
        text: The document, if it was given as text.
    """

    losses: npt.NDArray[np.float32]
    text: str | None = None

    @property
    def nats(self) -> float:
        """Nats of all tokens that were predicted."""
        return float(np.nansum(self.losses, dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to guess; infinite where it overflows."""
        predicted = np.count_nonzero(~np.isnan(self.losses))
        try:
            return math.exp(self.nats / predicted) if predicted else math.nan
        except OverflowError:
            return math.inf

    @property
    def bits_per_character(self) -> float:
        """Bits of the whole document, for each of its characters."""
        return self._bits_per(self._counts().characters)

    @property
    def bits_per_byte(self) -> float:
        """Bits of the whole document, for each byte of its UTF-8 form."""
        return self._bits_per(self._counts().bytes)

    @property
    def bits_per_word(self) -> float:
        """Bits of the whole document, for each of its words; words stand between white space."""
        return self._bits_per(self._counts().words)

    def _counts(self) -> TextCounts:
        if self.text is None:
            raise ValueError("this document was given as ids, whose characters are not known: score it as text")
        return TextCounts.of(self.text)

    def _bits_per(self, number: int) -> float:
        return self.nats / math.log(2) / number if number else math.nan


def score(
    model: TransfoXLLMHeadModel,
    documents: Sequence[Document],
    encoder: Encoder | None = None,
    *,
    read_before: int | Literal["line end"] | None = "line end",
    segment_length: int | None = None,
    batch_size: int = 8,
) -> list[DocumentScore]:
    """Return what each token of each document costs the model, in the order of the documents.

    Documents are read side by side, segment by segment with carried memory: the memory that this takes does not grow
    with their length, and each gets the numbers that it gets alone. The model is put into evaluation mode.

    Args:
        model: The model, with its memory length.
        documents: Texts, or the token ids of texts [N]; a memory-mapped array stays on disk.
        encoder: Turns text into ids; needed for texts only.
        read_before: A token that is read before each document, so that its first token is predicted too; None to begin
            with nothing, where the first token costs nothing. By default, as in evaluation, it is the line end of the
            encoder where there is one, and nothing for ids without an encoder.
        segment_length: Tokens that are read at once; as many as suit the model and the documents by default.
        batch_size: Documents that are read side by side.

    Raises:
        ValueError: There is text but no encoder, a document has no token, or a number is out of range.

    Example:
        >>> for document in score(model, ["A first text.", "Another one."], vocabulary):
        ...     print(document.bits_per_character, document.losses)
    """
    if isinstance(documents, str):
        raise ValueError("documents is one text: give a list of texts, [text] for a single one")
    for name, number in (("segment_length", segment_length), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, but must be at least 1")
    before = _line_end(encoder) if read_before == "line end" else read_before
    texts = [_ids(document, encoder, place) for place, document in enumerate(documents)]
    model.train(False)
    losses: dict[int, npt.NDArray[np.float32]] = {}
    # Documents of similar length go together, so that few rows have ended while others go on.
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(by_length), batch_size):
        places = by_length[start : start + batch_size]
        rows = _losses_side_by_side(model, [texts[place] for place in places], before, segment_length)
        losses.update(zip(places, rows, strict=True))
    return [
        DocumentScore(losses[place], document if isinstance(document, str) else None)
        for place, document in enumerate(documents)
    ]


def _line_end(encoder: Encoder | None) -> int | None:
    if isinstance(encoder, PreTrainedTokenizerBase):
        encoder = TokenizerVocabulary(encoder)
    return encoder.line_end_id if isinstance(encoder, Vocabulary | TokenizerVocabulary) else None


def _ids(document: Document, encoder: Encoder | None, place: int) -> npt.NDArray[np.integer]:
    if isinstance(document, str):
        if encoder is None:
            raise ValueError(
                f"document {place} is text, but no encoder was given: give the vocabulary or tokenizer, or ids"
            )
        document = encoder.encode(document)
    ids = np.asarray(document)
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"document {place} has ids of shape {ids.shape}, but must have one row of at least one token")
    return ids


@torch.no_grad()
def _losses_side_by_side(
    model: TransfoXLLMHeadModel,
    texts: Sequence[npt.NDArray[np.integer]],
    read_before: int | None,
    segment_length: int | None,
) -> list[npt.NDArray[np.float32]]:
    """Return the losses of each text; a row whose text has ended reads on, but nothing is predicted in it."""
    longest = max(map(len, texts))
    losses = np.full((len(texts), longest), np.nan, dtype=np.float32)
    segment_length = segment_length or tokens_at_once(model, longest)
    reader = Reader(model, segment_length)
    for start in range(int(read_before is None), longest, segment_length):
        stop = min(start + segment_length, longest)
        targets = np.full((len(texts), stop - start), IGNORED_LABEL, dtype=np.int64)
        inputs = np.zeros_like(targets)
        for row, text in enumerate(texts):
            piece = text[start:stop]
            targets[row, : len(piece)] = piece
            before = text[start - 1 : stop - 1] if start else np.concatenate([[read_before], text[: stop - 1]])
            inputs[row, : len(before)] = before
        on_device = (torch.from_numpy(ids).to(model.device) for ids in (inputs, targets))
        losses[:, start:stop] = reader.losses(*on_device).cpu().numpy()
    return [row[: len(text)] for row, text in zip(losses, texts, strict=True)]
