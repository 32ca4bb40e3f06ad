"""One text read under one protocol."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transformer_xl.data.segments import NOT_COUNTED, Documents, Segment, Segments, SegmentStream, Sentences
from transformer_xl.evaluation.adaptation import AdaptingReader, adapting_reader
from transformer_xl.evaluation.protocol import Protocol
from transformer_xl.evaluation.scores import Score
from transformer_xl.evaluation.stretches import stretches
from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.modeling.reading import Reader, tokens_at_once
from transformer_xl.text.counts import TextCounts
from transformer_xl.text.vocabulary import Ids


def evaluate(
    model: TransfoXLLMHeadModel,
    text: Ids | Iterable[Segment],
    protocol: Protocol,
    *,
    counts: TextCounts | None = None,
    side_by_side: int = 1,
    training_text: Ids | None = None,
) -> Score:
    """The score of a text: each of its tokens is predicted once, in order, with carried memory.

    Of the ids of a text the first is predicted only if the protocol has a token that stands before it. Where the cut of
    the text does not matter, more than the target length may be read in one pass. The model comes back as it was: its
    weights, memory length, clamp, same_length and its mode.

    Args:
        model: The model; its dropout is off while it reads.
        text: The ids of the text [N], which may stay on disk; or segments that were cut elsewhere, such as `Documents`,
            for a protocol of the same batch size and target length; what stands before the text, what is read again
            and where a memory begins anew is then as the segments say, and the score's protocol tells it.
        protocol: How it is read.
        counts: The text's characters, bytes and words, to quote the score by.
        side_by_side: For speed, so many stretches of one stream are read in one batch. Each first reads again what its
            numbers depend on, so that every token costs what it costs in one stream, but for rounding.
        training_text: Ids whose gradients scale the steps of dynamic evaluation by the rule "rms"; some of the text
            that the model was trained on.

    Raises:
        ValueError: The text is too short or no row of ids, or two arguments contradict each other.
        FloatingPointError: Dynamic evaluation has diverged.

    Example:
        >>> protocol = Protocol(64, 640, clamp_length=400, same_length=True, begin=vocabulary.line_end_id)
        >>> score = evaluate(model, vocabulary.encode(text), protocol, counts=TextCounts.of(text))
        >>> score.perplexity, score.bits_per_character, str(score.protocol)
    """
    if isinstance(text, np.ndarray):
        length = _tokens_at_once(text, protocol, side_by_side, model)
        segments = _segments_of_ids(text, protocol, length, side_by_side, model)
    else:
        length = protocol.target_length
        segments, protocol = _segments_given(text, protocol, side_by_side)
    began = time.perf_counter()
    nats, tokens = torch.zeros((), dtype=torch.float64, device=model.device), 0
    with reading_by(protocol, model), torch.no_grad(), _reader(model, protocol, length, training_text) as reader:
        for segment in segments:
            tokens += int(segment.targets.ne(NOT_COUNTED).sum())
            if segment.resets is not None and segment.resets.any():
                reader.reset(segment.resets)
            segment = segment.to(model.device)
            nats += reader.losses(segment.inputs, segment.targets).sum(dtype=torch.float64)
    total = nats.item()
    if protocol.dynamic is not None and not math.isfinite(total):
        raise FloatingPointError(
            f"the loss is {total} under dynamic evaluation ({protocol.dynamic}): give a lower learning rate"
        )
    return Score(total, tokens, protocol, time.perf_counter() - began, counts)


@contextmanager
def reading_by(protocol: Protocol, model: TransfoXLLMHeadModel) -> Iterator[None]:
    """Give the model the lengths of a protocol, without dropout, and afterwards its own again."""
    transformer = model.transformer
    before = (transformer.mem_len, transformer.clamp_len, transformer.same_length, transformer.ext_len)
    training = model.training
    try:
        model.train(False)
        transformer.mem_len = protocol.memory_length
        transformer.clamp_len = protocol.clamp_length
        transformer.same_length = protocol.same_length
        transformer.ext_len = protocol.extended_length
        yield
    finally:
        transformer.mem_len, transformer.clamp_len, transformer.same_length, transformer.ext_len = before
        model.train(training)


def _tokens_at_once(ids: Ids, protocol: Protocol, side_by_side: int, model: TransfoXLLMHeadModel) -> int:
    """Return how many tokens are read in one pass: more than the target length where no token can tell the cut."""
    is_cut_freely = (
        protocol.same_length
        and protocol.memory_length > 0
        and protocol.extended_length == 0
        and protocol.dynamic is None
        and protocol.temperature == 1  # Otherwise all scores of a segment are held at a time.
        and side_by_side == 1
        and model.config.attn_type in (0, 1)
    )
    if not is_cut_freely:
        return protocol.target_length
    with reading_by(protocol, model):
        return max(protocol.target_length, tokens_at_once(model, ids.size // protocol.batch_size))


def _segments_of_ids(
    ids: Ids, protocol: Protocol, length: int, side_by_side: int, model: TransfoXLLMHeadModel
) -> Iterable[Segment]:
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"text is {ids.dtype} of shape {ids.shape}, but must be one row of integer ids")
    segments = Segments(ids, protocol.batch_size, length, begin=protocol.begin, ext_len=protocol.extended_length)
    if side_by_side == 1:
        return segments
    if side_by_side < 1:
        raise ValueError(f"side_by_side is {side_by_side}, but must be at least 1")
    if protocol.batch_size > 1 or protocol.extended_length or protocol.dynamic is not None:
        raise ValueError(
            f"side_by_side is {side_by_side}, but only one stream that nothing is read again of, by a model that stays "
            "as it is, can be read in several stretches: give batch_size 1, extended_length 0 and no dynamic "
            "evaluation, or side_by_side 1"
        )
    if model.config.attn_type in (2, 3):
        raise ValueError(
            f"side_by_side is {side_by_side}, but a model of attn_type {model.config.attn_type} counts positions from "
            "the end of what it reads, which is not the same in all stretches: give side_by_side 1"
        )
    # Each layer reaches back by the memory once more.
    warm_up = model.config.n_layer * -(-protocol.memory_length // protocol.target_length)
    return stretches(segments, side_by_side, warm_up)


def _segments_given(
    segments: Iterable[Segment], protocol: Protocol, side_by_side: int
) -> tuple[Iterable[Segment], Protocol]:
    if side_by_side != 1:
        raise ValueError(f"side_by_side is {side_by_side}, but segments were given: give the ids of the text")
    if isinstance(segments, SegmentStream):
        ext_len = segments.ext_len if isinstance(segments, Segments) else 0
        protocol = replace(protocol, begin=segments.begin, extended_length=ext_len)
    if isinstance(segments, Sentences | Documents):
        protocol = replace(protocol, pieces="kept" if isinstance(segments, Sentences) else "alone")
    return _as_the_protocol_says(segments, protocol), protocol


def _as_the_protocol_says(segments: Iterable[Segment], protocol: Protocol) -> Iterator[Segment]:
    for segment in segments:
        batch_size, length = segment.inputs.shape
        if batch_size != protocol.batch_size or length > protocol.target_length + protocol.extended_length:
            raise ValueError(
                f"a segment has {batch_size} rows of {length} tokens, but the protocol says batch "
                f"{protocol.batch_size} and target {protocol.target_length}: give both the same numbers"
            )
        yield segment


@contextmanager
def _reader(
    model: TransfoXLLMHeadModel, protocol: Protocol, segment_length: int, training_text: Ids | None
) -> Iterator[Reader | AdaptingReader]:
    if protocol.dynamic is None:
        yield _ReaderByProtocol(model, protocol, segment_length)
        return
    if protocol.temperature != 1:
        raise ValueError("dynamic evaluation learns from the model's own loss: give temperature 1")
    training = None
    if training_text is not None:
        training = Segments(
            training_text, protocol.batch_size, protocol.target_length, ext_len=protocol.extended_length
        )
    with adapting_reader(model, protocol.dynamic, training) as reader:
        yield reader


class _ReaderByProtocol(Reader):
    """A reader that can be made less sure."""

    def __init__(self, model: TransfoXLLMHeadModel, protocol: Protocol, segment_length: int) -> None:
        super().__init__(model, segment_length, rereads=protocol.extended_length > 0)
        self.temperature = protocol.temperature

    def losses(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        if self.temperature == 1:
            return super().losses(input_ids, targets)
        scores = cast(Tensor, self.read(input_ids, logits_to_keep=0).prediction_scores).float() / self.temperature
        return F.cross_entropy(scores.mT, targets, ignore_index=NOT_COUNTED, reduction="none")
