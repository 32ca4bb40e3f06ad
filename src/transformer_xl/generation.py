"""Text that a model writes: it reads the prompt segment by segment and goes on symbol by symbol."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.sessions import Sampling, Session
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary
from transformer_xl.text.vocabulary import Ids, Vocabulary


def generate_text(
    model: TransfoXLLMHeadModel,
    vocabulary: Vocabulary | TokenizerVocabulary,
    prompt: str,
    num_symbols: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> Iterator[str]:
    """The continuation of a prompt, piece by piece while it is written; joined, it is `num_symbols` symbols long.

    `temperature` 0 always takes the likeliest symbol; smaller is more careful, 1 is what the model believes.
    `top_k` keeps the k likeliest symbols (0: all), `top_p` the likeliest that together reach this probability.
    A `seed` makes the text repeatable. The unknown symbol is never written. The model is left in evaluation mode.

    >>> print("".join(generate_text(model, vocabulary, "ROMEO.", 200, temperature=0.8, seed=1)))  # doctest: +SKIP
    """
    session = Session(model, seed=seed)
    return continue_text(session, vocabulary, prompt, num_symbols, temperature=temperature, top_k=top_k, top_p=top_p)


def continue_text(
    session: Session,
    vocabulary: Vocabulary | TokenizerVocabulary,
    prompt: str,
    num_symbols: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Iterator[str]:
    """As `generate_text`, but after all that a session of one text has read; its prompt may then be empty.

    The session has read the prompt and what was written when the last piece has come.
    """
    if num_symbols < 1:
        raise ValueError(f"the length is {num_symbols}, but must be at least 1 symbol")
    prompt_ids = vocabulary.encode(prompt, strict=True)
    if not len(prompt_ids) and not session.num_read:
        raise ValueError("the prompt holds no symbol: give at least one to go on from")
    never = () if vocabulary.unknown_id is None else (vocabulary.unknown_id,)
    sampling = Sampling(temperature, top_k, top_p, never)
    # What was read last goes through the stream as well: it decides whether a word needs a space before it.
    before = prompt_ids if session.newest is None else [*session.newest.tolist(), *prompt_ids]
    pieces = vocabulary.stream(chain(map(int, before), _written(session, prompt_ids, num_symbols, sampling)))
    return islice(pieces, len(before), None)


def open_session(model: TransfoXLLMHeadModel, path: str | Path, seed: int | None = None) -> Session:
    """The session that was saved at `path`, or a new one if there is no such file; a `seed` makes it repeatable."""
    if not Path(path).exists():
        return Session(model, seed=seed)
    session = Session.load(model, path)
    if session.batch_size != 1:
        raise ValueError(f"the session {path} holds {session.batch_size} texts, but only one can be written here")
    if seed is not None:
        session.seed(seed)
    return session


def _written(session: Session, prompt_ids: Ids, num_symbols: int, sampling: Sampling) -> Iterator[int]:
    if len(prompt_ids):
        session.feed(torch.from_numpy(prompt_ids.astype(np.int64)))
    for token in session.write(num_symbols, sampling):
        yield int(token)
