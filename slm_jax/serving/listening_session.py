"""Words that are written while speech comes in: a speech-aware text LM whose words listen, at a pace (BESTOW-S).

A push is as much speech as the pace reads at once. The encoder hears it chunk by chunk, the adapter reads all frames so
far anew, then each row writes as many ids as it may. What is written is what `SpeechAwareSystem.respond` writes at the
same pace of the whole clip.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.contracts import Spoken
from slm_jax.core.errors import require
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.types import Frames
from slm_jax.generation.advance import Decoding, State, StepIn, decoding
from slm_jax.generation.decode import layers_apart
from slm_jax.generation.prompts import row_keys
from slm_jax.nn.pacing import PaceConfig
from slm_jax.serving.speech_aware import SpeechAwareSystem

LONGEST_S = 30.0


class ListeningSession:
    """`batch` streams of speech that are asked the same in words, `asked`; each starts, rests, ends and is reset alone.

    `hop`: samples of a push at `rate_hz`. Raises `UserError` for a system that cannot write while it reads.
    """

    def __init__(
        self,
        system: SpeechAwareSystem,
        batch: int,
        asked: str,
        pace: PaceConfig | None = None,
        longest_s: float = LONGEST_S,
    ) -> None:
        config, pace = system.model.config, pace or system.decoding.pace
        streams = config.listener is not None and getattr(config.encoder, "streams", False)
        require(streams, "system", type(config.encoder).__name__, "needs words that listen, and an encoder by chunks")
        require(pace is not None, "pace", pace, "says how many ids are written when")
        assert pace is not None  # for the type checker
        self.batch, self.rate_hz, self.pace, self.hop = batch, system.rate_hz, pace, pace.chunk * config.vector_samples
        chunk = config.encoder.chunk_samples
        require(self.hop % chunk == 0, "pace.chunk", pace.chunk, f"must be whole chunks of {chunk} samples")
        self._system, self._ids = system, self._prompt(system, asked)
        model = system.model.clone(paces=(None,))  # what is not heard yet is not there
        self._steps = decoding(model, system.decoding.sampling.replace(end=system.layout.end_id))
        self._variables = layers_apart(system.variables)
        self._keys, self._frames = row_keys(jax.random.key(0), batch), config.frames_heard(round(longest_s * 16_000))
        self._heard: Any = self._blank()
        self._state: State = self._steps.initial_state(batch, self._capacity)
        self._chunks, self._begun = np.zeros(batch, int), np.zeros(batch, bool)
        self._done, self._said = np.zeros(batch, bool), [list[int]() for _ in range(batch)]

    def push(self, samples: Float[Array | np.ndarray, "B N"], active: Bool[Array | np.ndarray, "B"]) -> Spoken:
        """The next `hop` samples of the rows that are `active`, and what is written meanwhile."""
        return self.push_parts(samples, np.where(np.asarray(active), self.hop, 0))

    def push_parts(self, samples: Float[Array | np.ndarray, "B N"], lengths: Int[np.ndarray, "B"]) -> Spoken:
        """`push` where rows may end within it: so many samples of each are real. Behind those comes `finish`."""
        given = np.asarray(samples, np.float32)
        require(given.shape == (self.batch, self.hop), "samples", given.shape, f"must be {(self.batch, self.hop)}")
        real = np.arange(self.hop) < np.asarray(lengths)[:, None]
        self._heard = _hear(self._steps.model, self._variables, given, real, self._heard)
        self._chunks += real.any(1)
        require(
            int(self._heard[2].max()) <= self._frames, "speech", int(self._heard[2].max()), "is longer than longest_s"
        )
        return self._written(real.any(1) & (self._chunks >= self.pace.wait))

    def finish(self, rows: Bool[np.ndarray, "B"] | None = None) -> Spoken:
        """No more speech comes in these rows (None: all): what is left to be said."""
        rows = np.ones(self.batch, bool) if rows is None else np.asarray(rows, bool)
        texts = [""] * self.batch
        while (going := rows & ~self._done & (self._chunks > 0)).any():
            texts = [a + b for a, b in zip(texts, self._written(going).texts, strict=True)]
        return Spoken(np.zeros((self.batch, self.hop), np.float32), tuple(texts))

    def reset(self, rows: Bool[np.ndarray, "B"]) -> None:
        """The given rows as new."""
        rows = np.asarray(rows, bool)
        fresh = (self._blank(), self._steps.initial_state(self.batch, self._capacity))
        self._heard, self._state = (
            _chosen(rows, *pair) for pair in zip(fresh, (self._heard, self._state), strict=True)
        )
        self._chunks = np.where(rows, 0, self._chunks)
        self._begun, self._done = self._begun & ~rows, self._done & ~rows
        self._said = [[] if row else said for row, said in zip(rows, self._said, strict=True)]

    @property
    def said(self) -> list[list[int]]:
        """Ids of each row so far, its end included."""
        return self._said

    @property
    def _capacity(self) -> int:
        return len(self._ids) + self._system.decoding.max_new

    def _blank(self) -> Any:
        """State of the encoder, its frames so far, and how many there are of each row."""
        encoder = self._system.model.config.encoder
        frames = jnp.zeros((self.batch, self._frames + self.hop // encoder.hop, encoder.width))
        return encoder.make().initial_state(self.batch), frames, jnp.zeros((self.batch,), jnp.int32)

    def _written(self, going: Bool[np.ndarray, "B"]) -> Spoken:
        """What rows write that may go on, up to so many ids each."""
        going, most = going & ~self._done, self._system.decoding.max_new
        begins = going & ~self._begun
        ids, self._state = _write(
            self._steps,
            self.pace.tokens,
            self._variables,
            self._state,
            self._heard,
            self._ids,
            begins,
            going,
            self._keys,
        )
        before, end = self._texts(), self._system.layout.end_id
        for row in np.flatnonzero(going):
            new = [int(one) for one in np.asarray(ids)[row] if one != -1]
            self._said[row] = (self._said[row] + new)[:most]
            self._done[row] = end in new or len(self._said[row]) >= most
        self._begun = self._begun | begins
        texts = tuple(now[len(old) :] for now, old in zip(self._texts(), before, strict=True))
        return Spoken(np.zeros((self.batch, self.hop), np.float32), texts)

    def _texts(self) -> list[str]:
        layout = self._system.layout
        return [layout.tokens.decode([one for one in said if one != layout.end_id]).strip() for said in self._said]

    @staticmethod
    def _prompt(system: SpeechAwareSystem, asked: str) -> Int[np.ndarray, "L"]:
        """What stands before an answer; the clip takes no place in it."""
        clip = Speech(np.zeros(system.rate_hz, np.float32), system.rate_hz)
        return system.layout.entries((Message("user", (clip, Text(asked))),), False).ids


@partial(jax.jit, static_argnums=0)
def _hear(model: Any, variables: Any, samples: Array, real: Array, heard: Any) -> Any:
    """The encoder hears the next chunks; their frames behind those that are there."""
    state, frames, counts = heard
    chunk = model.config.encoder.chunk_samples
    for start in range(0, samples.shape[1], chunk):
        part = slice(start, start + chunk)
        new, state = model.apply(variables, samples[:, part], real[:, part], state, method="stream")
        placed = jax.vmap(lambda row, tail, at: jax.lax.dynamic_update_slice_in_dim(row, tail, at, 0))
        frames = placed(frames, new.values.astype(frames.dtype), counts)
        counts = counts + new.mask.sum(-1, dtype=jnp.int32)
    return state, frames, counts


@partial(jax.jit, static_argnums=1)
def _write(
    steps: Decoding,
    count: int,
    variables: Any,
    state: State,
    heard: Any,
    ids: Int[Array, "L"],
    begins: Bool[Array, "B"],
    going: Bool[Array, "B"],
    keys: Any,
) -> tuple[Int[Array, "B W"], State]:
    """`count` ids of the rows that are `going`, -1 where none; those that begin read the prompt first."""
    model, (_, frames, counts) = steps.model, heard
    rows, mask = len(begins), jnp.arange(frames.shape[1]) < counts[:, None]
    speech = model.apply(variables, Frames(frames, mask), method="speech")
    caches = model.apply(variables, speech, state.caches, method="hear")
    words = model.apply(variables, jnp.tile(ids, (rows, 1)), method="embed")
    asked = begins[:, None] & jnp.ones((1, len(ids)), bool)
    features, caches = model.apply(variables, words, caches, asked, method="extend")
    logits = model.apply(variables, features[:, -1], method="head")
    last = jnp.where(begins[:, None], 0, state.last)  # of their answer nothing is written yet; 0 says that they began
    state = State(caches, last, state.written, state.drawn, state.seen, state.ended)
    free, found = jnp.full((rows, 1), -1, jnp.int32), []
    first, state = steps.write(variables, logits, StepIn(free, begins), state, keys)
    out, state = steps.advance(variables, StepIn(free, going & ~begins), state, keys)
    found.append(jnp.where(begins[:, None], first.ids, out.ids))
    for _ in range(count - 1):
        out, state = steps.advance(variables, StepIn(free, going), state, keys)
        found.append(out.ids)
    return jnp.concatenate(found, axis=1), state


def _chosen(rows: Bool[np.ndarray, "B"], fresh: Any, old: Any) -> Any:
    """`fresh` in some rows, `old` in the others."""

    def one(new: jax.Array, before: jax.Array) -> jax.Array:
        if new.ndim < 1 or new.shape != before.shape:
            return new
        return jnp.where(jnp.asarray(rows).reshape(-1, *[1] * (new.ndim - 1)), new, before)

    return jax.tree.map(one, fresh, old)
