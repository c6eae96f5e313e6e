"""A codec push by push: a batch of streams of sound to codes, of codes to sound, or both in turn.

Rows start, rest, stop and begin anew on their own. What comes out equals what the codec makes of whole recordings.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from slm_jax.assemblies.codec import Codec, CodecConfig
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Frames

Rows = Bool[np.ndarray, "B"]


class Stream:
    """Frames in, frames out, `startup` of them at once where a row begins: until so many came it is held back.

    `step(values [B, n, ...], mask [B, n], state) -> (values, state)` takes any number of whole frames of `size` entries
    each; a program is made for each number of frames that a push has. `late`: entries that come out before a row's
    first real one, and are left out.
    """

    def __init__(
        self, step: Callable, state: Any, reset: Callable, batch: int, size: int, startup: int, late: int = 0
    ) -> None:
        self.batch, self.size, self.startup, self.late = batch, size, startup, late
        self._owed = np.full(batch, late)
        self._step, self._reset = jax.jit(step, donate_argnums=2), jax.jit(reset)
        self._state = state
        self._begun = np.full(batch, startup == 1)
        self._waiting: list[list[np.ndarray]] = [[] for _ in range(batch)]

    def push(self, values: Shaped[np.ndarray, "B N ..."], active: Rows) -> list[np.ndarray]:
        """What came out of every row: nothing of rows that rest, or that have not had enough to begin."""
        frames, left = divmod(values.shape[1], self.size)
        fits = len(values) == len(active) == self.batch and frames > 0 and not left
        require(fits, "push", values.shape, f"{self.batch} rows of a multiple of {self.size} entries")
        active = np.asarray(active, bool)
        if (active & ~self._begun).any():
            pieces = [self._begin(part, active) for part in np.split(np.asarray(values), frames, axis=1)]
            return [np.concatenate(row) for row in zip(*pieces, strict=True)]
        return self._run(values, active)

    def reset(self, rows: Rows) -> None:
        """Let these rows begin anew."""
        rows = np.asarray(rows, bool)
        require(rows.shape == (self.batch,), "rows", rows.shape, f"one for each of the {self.batch} streams")
        self._state = self._reset(self._state, rows)
        self._begun = np.where(rows, self.startup == 1, self._begun)
        self._owed = np.where(rows, self.late, self._owed)
        self._waiting = [[] if anew else kept for anew, kept in zip(rows, self._waiting, strict=True)]

    def _run(self, values: Any, rows: Rows) -> list[np.ndarray]:
        """The next frames of these rows."""
        mask = np.broadcast_to(rows[:, None], (self.batch, values.shape[1]))
        made, self._state = self._step(values, mask, self._state)
        found = [row if there else row[:0] for row, there in zip(np.asarray(made), rows, strict=True)]
        if self.late:
            kept = [row[owed:] for row, owed in zip(found, self._owed, strict=True)]
            self._owed -= [len(row) - len(rest) for row, rest in zip(found, kept, strict=True)]
            return kept
        return found

    def finish(self, rows: Rows, last: Callable) -> list[np.ndarray]:
        """What these rows still owe, and let them begin anew; `last(state)` gives the `late` entries of all rows."""
        rows = np.asarray(rows, bool)
        made = np.asarray(jax.jit(last)(self._state))
        found = [row[owed:] if ends else row[:0] for row, owed, ends in zip(made, self._owed, rows, strict=True)]
        self.reset(rows)
        return found

    def _begin(self, frame: np.ndarray, active: Rows) -> list[np.ndarray]:
        """One frame, while some rows have not begun."""
        found = self._run(frame, active & self._begun)
        for row in np.flatnonzero(active & ~self._begun):
            self._waiting[row].append(frame[row])
        ready = np.array([len(kept) == self.startup for kept in self._waiting])
        if ready.any():
            silent = np.zeros_like(np.concatenate([frame[0]] * self.startup))
            first = [np.concatenate(kept) if go else silent for kept, go in zip(self._waiting, ready, strict=True)]
            began = self._run(np.stack(first), ready)
            found = [new if go else old for new, old, go in zip(began, found, ready, strict=True)]
            self._begun |= ready
            self._waiting = [[] if go else kept for kept, go in zip(self._waiting, ready, strict=True)]
        return found


def _encode(codec: Codec, books: int | None, variables: Any, samples: Any, mask: Any, state: Any) -> tuple[Any, Any]:
    frames = Frames(jnp.asarray(samples, jnp.float32)[..., None], jnp.asarray(mask))
    codes, state = codec.apply(variables, frames, state, books, method="encode_step")
    return codes.ids, state


def _decode(codec: Codec, variables: Any, ids: Any, mask: Any, state: Any) -> tuple[Any, Any]:
    codes = Codes(jnp.asarray(ids, jnp.int32), jnp.asarray(mask))
    frames, state = codec.apply(variables, codes, state, method="decode_step")
    return frames.values[..., 0], state


class CodecSession:
    """`batch` streams through a codec; encoding and decoding go on apart from each other.

    Raises `UserError` for a codec that is not causal.
    """

    def __init__(self, config: CodecConfig, variables: Any, batch: int, books: int | None = None) -> None:
        require(config.streams, "codec", type(config.encoder).__name__, "it is not causal: encode whole recordings")
        self.config, self.batch, self.hop, self.rate_hz = config, batch, config.hop, config.rate_hz
        self.columns = config.quantizer.columns(books)
        codec, startup = config.make(), config.startup

        def stream(name: str, step: Callable, size: int, late: int = 0) -> Stream:
            state = codec.apply(variables, batch, method=f"{name}_state")
            reset = partial(codec.apply, variables, method=f"{name}_reset")
            return Stream(step, state, reset, batch, size, startup, late)

        self._encoding = stream("encode", partial(_encode, codec, books, variables), self.hop)
        self._decoding = stream("decode", partial(_decode, codec, variables), 1, config.late)
        self._last = lambda state: codec.apply(variables, state, method="decode_finish")[..., 0]

    def encode(self, samples: Float[np.ndarray, "B N"], active: Rows) -> list[Int[np.ndarray, "T K"]]:
        """Codes of the next samples of each active row, whole frames.

        Raises `UserError` for samples that are not finite, or no multiple of the hop; the session goes on.
        """
        samples = np.asarray(samples, np.float32)
        heard = np.isfinite(samples).all(-1) | ~np.asarray(active, bool)
        require(bool(heard.all()), "samples of rows", np.flatnonzero(~heard).tolist(), "must be finite")
        return self._encoding.push(samples, active)

    def decode(self, ids: Int[np.ndarray, "B T K"], active: Rows) -> list[Float[np.ndarray, "N"]]:
        """Samples of the next codes of each active row.

        Raises `UserError` for codes that the codec does not have; the session goes on.
        """
        sizes = np.array(self.config.quantizer.sizes[: ids.shape[-1]])
        fits = ids.ndim == 3 and ids.shape[-1] == self.columns
        require(fits, "codes", ids.shape, f"must be [B, T, {self.columns}]")
        known = ((ids >= 0) & (ids < sizes)).all((1, 2)) | ~np.asarray(active, bool)
        require(bool(known.all()), "codes of rows", np.flatnonzero(~known).tolist(), f"must be in [0, {sizes.max()})")
        return self._decoding.push(ids, active)

    def finish(self, rows: Rows) -> list[Float[np.ndarray, "N"]]:
        """The last samples of rows whose codes end here (nothing, of a codec that is never late); they begin anew."""
        if self.config.late:
            return self._decoding.finish(rows, self._last)
        self._decoding.reset(rows)
        return [np.zeros(0, np.float32)] * self.batch

    def reset(self, rows: Rows) -> None:
        """Let these rows begin anew, on both sides."""
        self._encoding.reset(rows)
        self._decoding.reset(rows)
