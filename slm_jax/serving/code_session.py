"""Codes written frame by frame under any scheme: rows get frames, or go on by themselves, each at a time of its own."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.generation.advance import Decoding, stream_sizes
from slm_jax.schemes.table import Scheme
from slm_jax.serving.session import Session


class CodeSession:
    """`Session` with time: one push begins a frame of every active row, and all steps are done that need no later one.

    What comes out are the frames that are complete by then, `Scheme.latency` behind at most. Codes are those of
    `generation.by_scheme.continue_codes` with as many frames, the same keys and the same frames given.
    """

    def __init__(
        self,
        steps: Decoding,
        params: Any,
        scheme: Scheme,
        frames: int,
        batch: int,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> None:
        """Opens `batch` new rows of `frames` frames each, until they are reset."""
        self.batch, self.frames, self.sizes = batch, frames, np.array(stream_sizes(steps.model))
        self.books = len(self.sizes)
        table = scheme.table(frames, self.books)
        self._time, self._book = table[..., 0], table[..., 1]
        self._needs = np.maximum.accumulate(self._time.max(1))  # a step waits for all frames of those before it
        self._session = Session(steps, params, batch, 1 + len(table), key)
        self._told = np.full((batch, frames, self.books), -1, np.int32)
        self._made = np.full((batch, frames, self.books), -1, np.int32)
        self._begun, self._step, self._given = (np.zeros(batch, int) for _ in range(3))
        self._fresh = np.ones(batch, bool)

    def push(
        self, codes: Int[np.ndarray, "B K"] | None = None, active: Bool[np.ndarray, "B"] | None = None
    ) -> list[Int[np.ndarray, "_ K"]]:
        """Begins a frame of the rows that are `active` (None: all); returns the frames that each row completed.

        `codes`: -1 where the model draws (None: everywhere). Raises `UserError` for wrong shapes, for ids outside a
        book and for a row that has had all its frames.
        """
        going = np.ones(self.batch, bool) if active is None else np.asarray(active, bool)
        told = np.full((self.batch, self.books), -1) if codes is None else np.asarray(codes)
        require(going.shape == (self.batch,), "active", going.shape, f"one flag for each of {self.batch} rows")
        require(told.shape == (self.batch, self.books), "codes", told.shape, f"({self.batch}, {self.books})")
        outside = told[(told < -1) | (told >= self.sizes)]
        require(outside.size == 0, "codes", outside[:5].tolist(), f"-1 or within the books of {self.sizes.tolist()}")
        full = np.flatnonzero(going & (self._begun == self.frames))
        require(full.size == 0, "rows", full.tolist(), f"have had their {self.frames} frames")
        rows = np.flatnonzero(going)
        self._told[rows, self._begun[rows]] = told[rows]
        self._begun += going
        self._start(going & self._fresh)
        while (ready := going & self._can_go()).any():
            self._advance(ready)
        return [self._completed(row) if going[row] else self._made[row, :0] for row in range(self.batch)]

    def reset(self, rows: Bool[np.ndarray, "B"], keys: Key[Array, "B"] | None = None) -> None:
        """The given rows as new."""
        rows = np.asarray(rows, bool)
        self._session.reset(rows, keys)
        self._told[rows] = self._made[rows] = -1
        for counted in (self._begun, self._step, self._given):
            counted[rows] = 0
        self._fresh = self._fresh | rows

    def _start(self, rows: Bool[np.ndarray, "B"]) -> None:
        """The first step of a row has no codes."""
        if rows.any():
            self._session.push(np.full((self.batch, self.books), EMPTY, np.int32), rows)
        self._fresh = self._fresh & ~rows

    def _can_go(self) -> Bool[np.ndarray, "B"]:
        """Rows whose next step needs only frames that have begun."""
        left = self._step < len(self._needs)
        return left & (self._needs[np.minimum(self._step, len(self._needs) - 1)] < self._begun)

    def _advance(self, rows: Bool[np.ndarray, "B"]) -> None:
        """One step of these rows."""
        step = np.minimum(self._step, len(self._needs) - 1)
        time, book = self._time[step], self._book[step]
        which = np.arange(self.batch)[:, None]
        ids = np.where(time < 0, EMPTY, self._told[which, np.maximum(time, 0), book])
        made = np.asarray(self._session.push(ids.astype(np.int32), jnp.asarray(rows)).ids)
        row, entry = np.nonzero(rows[:, None] & (time >= 0))
        self._made[row, time[row, entry], book[row, entry]] = made[row, entry]
        self._step += rows

    def _completed(self, row: int) -> Int[np.ndarray, "_ K"]:
        """Frames whose codes are all there and that were not given out yet."""
        first = self._given[row]
        whole = np.append((self._made[row, first:] >= 0).all(-1), False)
        count = int(np.argmin(whole))
        self._given[row] += count
        return self._made[row, first : first + count].copy()
