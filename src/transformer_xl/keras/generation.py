"""Writing token by token on kept keys and values, in one compiled step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from transformer_xl.keras import memory
from transformer_xl.keras.padding import last_tokens, taken

TOKENS_PER_STEP = 8
"""Tokens that one compiled step writes; those after the last one asked for are thrown away."""

SMALLEST_PROMPT = 16
"""Prompts are padded to this length or a power of two, so that few lengths are compiled."""


class Sampling(NamedTuple):
    """How a token is chosen: what is compiled into the step.

    Attributes:
        draws: Whether to draw, rather than to take the likeliest token.
        top_k: Draw from the k likeliest tokens only; 0 for all.
        has_top_p: Whether to draw from the likeliest tokens that together reach a probability only.
    """

    draws: bool
    top_k: int
    has_top_p: bool

    def draw(self, scores: Any, temperature: Any, top_p: Any, lot: Any) -> Any:
        """Return a token for each row of log-probabilities [B, V], by its lot in [0, 1), [B]."""
        scores = scores / temperature
        if self.top_k:
            scores = _at_least(scores, ops.top_k(scores, self.top_k)[0][:, -1:])
        if self.has_top_p:
            falling = ops.flip(ops.sort(scores, axis=-1), axis=-1)
            probabilities = ops.softmax(falling, axis=-1)
            reached_before = ops.cumsum(probabilities, axis=-1) - probabilities
            num_kept = ops.sum(ops.cast(reached_before < top_p, "int32"), axis=-1, keepdims=True)
            scores = _at_least(scores, ops.take_along_axis(falling, ops.maximum(num_kept, 1) - 1, axis=-1))
        reached = ops.cumsum(ops.softmax(scores, axis=-1), axis=-1)
        return ops.sum(ops.cast(reached <= lot[:, None] * reached[:, -1:], "int32"), axis=-1)


def _at_least(scores: Any, smallest: Any) -> Any:
    return ops.where(scores >= smallest, scores, float("-inf"))


class Writer(keras.Model):
    """A language model with what it needs to go on writing, as state: keys and values, the last token, the seed.

    Keys and values lie in a ring of M + 1 places, so that a step writes one place and moves nothing. A place's distance
    follows from how long ago it was written.

    Args:
        language_model: What predicts the next token; its weights are shared.
        batch_size: Number of rows B.
        sampling: How tokens are chosen.
    """

    def __init__(self, language_model: Any, batch_size: int, sampling: Sampling) -> None:
        super().__init__(dtype=language_model.dtype_policy)
        self.language_model = language_model
        self.batch_size = batch_size
        self.sampling = sampling
        self.lots = keras.random.SeedGenerator()
        self.build((None, None))

    def build(self, input_shape: Any) -> None:
        """Create the state."""
        body = self.language_model.transformer
        config, num_places = body.config, body.mem_len + 1
        heads = (config.n_head, num_places, config.d_head)

        def state(name: str, shape: tuple[int, ...], dtype: str = self.compute_dtype) -> Any:
            return self.add_weight(
                shape=shape, initializer="zeros", dtype=dtype, trainable=False, autocast=False, name=name
            )

        layers = range(config.n_layer)
        self.distance_keys = [state(f"distance_keys_{i}", heads) for i in layers]
        self.keys = [state(f"keys_{i}", (self.batch_size, *heads)) for i in layers]
        self.contents = [state(f"contents_{i}", (self.batch_size, *heads)) for i in layers]
        self.exists = state("exists", (self.batch_size, num_places), "bool")
        self.place = state("place", (), "int32")
        self.token = state("token", (self.batch_size,), "int32")
        self.finished = state("finished", (self.batch_size,), "bool")

    def call(self, inputs: dict[str, Any]) -> Any:
        """Read the prompt, if there is one in `inputs`, else write; return the new tokens [B, number of tokens]."""
        return self._read(inputs) if "input_ids" in inputs else self._write(inputs)

    def _read(self, inputs: dict[str, Any]) -> Any:
        body = self.language_model.transformer
        mask = ops.cast(inputs["attention_mask"], "bool")
        mems = ops.unstack(inputs["mems"], axis=0) if "mems" in inputs else None
        reading = body(input_ids=inputs["input_ids"], mems=mems, attention_mask=mask)
        self._keep(reading.mems)
        hidden = taken(reading.hidden, last_tokens(mask)[:, None])
        token = self._next(hidden[:, 0], inputs, self._draw(1)[0])
        token, finished = self._ended(token, ops.zeros((self.batch_size,), "bool"), inputs)
        self.token.assign(token)
        self.finished.assign(finished)
        return token[:, None]

    def _keep(self, mems: list[Any] | None) -> None:
        """Fill the ring with the keys and values of a memory, oldest first, and with the projected distances."""
        body = self.language_model.transformer
        num_places = body.mem_len + 1
        pasts = memory.given(body.config, mems, self.compute_dtype) if mems else []
        exists = ops.zeros((self.batch_size, num_places), "bool")
        if pasts:
            length = ops.shape(pasts[0])[1]
            known = ops.ones((self.batch_size, length), "bool")
            if body.config.initial_memory == "empty":
                known = memory.rows_with_tokens(pasts[-1])
            front = [[0, 0], [body.mem_len - length, 1]]
            exists = ops.cast(ops.pad(ops.cast(known, "int32"), front), "bool")
        distances = ops.flip(body.encoded_distances(num_places), axis=0)
        for i, layer in enumerate(body.layers):
            self.distance_keys[i].assign(layer.dec_attn.distance_keys(distances))
            if pasts:
                room = [[0, 0], [0, 0], *front[1:], [0, 0]]
                for kept, new in zip(
                    (self.keys[i], self.contents[i]), layer.dec_attn.keys_and_values(pasts[i]), strict=True
                ):
                    kept.assign(ops.pad(new, room))
        self.exists.assign(exists)
        self.place.assign(body.mem_len)

    def _write(self, inputs: dict[str, Any]) -> Any:
        lots = self._draw(TOKENS_PER_STEP)
        # Plain lists, since JAX does not know the lists in which Keras keeps its variables.
        distance_keys = [ops.convert_to_tensor(variable) for variable in self.distance_keys]
        state = [list(self.keys), list(self.contents), self.exists, self.place, self.token, self.finished]

        def step(i: Any, carried: list[Any]) -> list[Any]:
            keys, contents, exists, place, token, finished, tokens = carried
            keys, contents, exists, hidden = self._read_one(keys, contents, exists, place, token, distance_keys)
            token, finished = self._ended(self._next(hidden, inputs, lots[i]), finished, inputs)
            tokens = ops.slice_update(tokens, (0, i), token[:, None])
            return [keys, contents, exists, (place + 1) % exists.shape[1], token, finished, tokens]

        start = keras.tree.map_structure(ops.convert_to_tensor, state)
        nothing = ops.zeros((self.batch_size, TOKENS_PER_STEP), "int32")
        *end, tokens = ops.fori_loop(0, TOKENS_PER_STEP, step, [*start, nothing])
        for variable, value in zip(keras.tree.flatten(state), keras.tree.flatten(end), strict=True):
            variable.assign(value)
        return tokens

    def _read_one(
        self, keys: list[Any], contents: list[Any], exists: Any, place: Any, token: Any, distance_keys: list[Any]
    ) -> tuple[list[Any], list[Any], Any, Any]:
        """Return the ring after one more token, and the hidden state that predicts the next [B, D]."""
        body = self.language_model.transformer
        num_places = exists.shape[1]
        places = ops.arange(num_places, dtype="int32")
        exists = ops.logical_or(exists, places == place)
        distance = (place - places) % num_places
        visible = exists
        if body.same_length and body.mem_len > 0:
            visible = ops.logical_and(visible, distance < body.mem_len)
        hidden, shared = body.word_emb(token[:, None]), body.shared_biases()
        keys, contents = list(keys), list(contents)
        for i, layer in enumerate(body.layers):
            attention = layer.dec_attn
            content_bias, position_bias = attention.biases(shared)
            query = attention.queries(hidden)
            key, content = attention.keys_and_values(hidden)
            keys[i] = ops.slice_update(keys[i], (0, 0, place, 0), key)
            contents[i] = ops.slice_update(contents[i], (0, 0, place, 0), content)
            by_distance = attention.distance_scores(query, distance_keys[i], position_bias)
            scores = attention.content_scores(query, keys[i], content_bias) + ops.take(by_distance, distance, axis=-1)
            weights = attention.weigh(scores, visible[:, None, None, :])
            hidden = layer.pos_ff(attention.joined(hidden, ops.matmul(weights, contents[i])))
        return keys, contents, exists, hidden[:, 0]

    def _draw(self, num_tokens: int) -> Any:
        return keras.random.uniform((num_tokens, self.batch_size), seed=self.lots)

    def _next(self, hidden: Any, inputs: dict[str, Any], lot: Any) -> Any:
        crit, embedding = self.language_model.crit, self.language_model.transformer.word_emb
        if not self.sampling.draws:
            return crit.likeliest(hidden, embedding)
        return self.sampling.draw(crit(hidden, embedding=embedding), inputs["temperature"], inputs["top_p"], lot)

    def _ended(self, token: Any, finished: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Return the token, or padding in rows that have ended, and which rows have ended now."""
        token = ops.where(finished, ops.cast(inputs["padding"], "int32"), token)
        return token, ops.logical_or(finished, token == ops.cast(inputs["end"], "int32"))


class Writers:
    """The latest writers of a model; a class of its own, so that Keras does not take them for layers of the model."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.by_key: dict[Any, Writer] = {}

    def get(self, model: Any, batch_size: int, sampling: Sampling) -> Writer:
        """Return the writer for a batch size and a way of choosing, as it was or new."""
        body = model.transformer
        key = (batch_size, sampling, body.mem_len, body.clamp_len, body.same_length)
        if key not in self.by_key:
            if len(self.by_key) == self.most:
                del self.by_key[next(iter(self.by_key))]
            self.by_key[key] = Writer(model, batch_size, sampling)
        return self.by_key[key]


@dataclass(frozen=True)
class Settings:
    """What is asked of one generation; see `KerasTransfoXLLMHeadModel.generate`.

    Raises:
        ValueError: A number is out of range.
    """

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int | None
    eos_token_id: int | None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} is not allowed: write at least 1 token.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} is not allowed: it must be a number from 0 on.")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} is not allowed: give at least 1, or 0 to draw from all tokens.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is not allowed: it must be a probability above 0, up to 1.")

    def scalars(self, padding: int | None) -> dict[str, np.ndarray]:
        """Return what a compiled step takes as inputs, so that other values need no other step."""
        if padding is None:
            padding = self.eos_token_id
        return {
            "temperature": np.array(self.temperature, "float32"),
            "top_p": np.array(self.top_p, "float32"),
            "end": np.array(-1 if self.eos_token_id is None else self.eos_token_id, "int32"),
            "padding": np.array(padding or 0, "int32"),
        }


def write(
    model: Any, writers: Writers, input_ids: Any, settings: Settings, attention_mask: Any = None, mems: Any = None
) -> np.ndarray:
    """Return prompts with their continuations; see `KerasTransfoXLLMHeadModel.generate`.

    Raises:
        ValueError: There is no prompt, or the model reads tokens twice.
    """
    if model.transformer.ext_len:
        raise ValueError(f"ext_len={model.transformer.ext_len} reads tokens twice: set ext_len=0 to generate.")
    prompt = np.asarray(ops.convert_to_numpy(input_ids))
    if prompt.ndim != 2 or not prompt.size:
        raise ValueError(f"input_ids has the shape {prompt.shape}, but must be [B, T] with at least one token.")
    sampling = Sampling(settings.temperature > 0, min(settings.top_k, model.config.vocab_size), settings.top_p < 1)
    writer = writers.get(model, len(prompt), sampling)
    if settings.seed is not None:
        writer.lots.state.assign([settings.seed, 0])
    scalars = settings.scalars(model.config.pad_token_id)
    pieces = [writer.predict_on_batch(scalars | _prompt_inputs(prompt, attention_mask, mems))]
    while sum(piece.shape[1] for piece in pieces) < settings.max_new_tokens:
        if _ends(pieces, scalars).any(axis=1).all():
            break
        pieces.append(writer.predict_on_batch(scalars))
    ends = _ends(pieces, scalars)
    length = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, settings.max_new_tokens).max()
    return np.concatenate([prompt, *pieces], axis=1)[:, : prompt.shape[1] + length]


def _prompt_inputs(prompt: np.ndarray, attention_mask: Any, mems: Any) -> dict[str, np.ndarray]:
    """Return prompt and mask with padding in front, up to one of few lengths, and the memory in one array."""
    length = prompt.shape[1]
    mask = np.ones(prompt.shape) if attention_mask is None else ops.convert_to_numpy(attention_mask)
    front = ((0, 0), (max(SMALLEST_PROMPT, 1 << (length - 1).bit_length()) - length, 0))
    inputs = {"input_ids": np.pad(prompt.astype("int32"), front), "attention_mask": np.pad(mask.astype("int32"), front)}
    if mems is not None:
        inputs["mems"] = np.stack([ops.convert_to_numpy(layer) for layer in mems])
    return inputs


def _ends(pieces: list[np.ndarray], scalars: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(pieces, axis=1) == scalars["end"]
