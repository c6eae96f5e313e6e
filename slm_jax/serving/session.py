"""A batch of token streams that are served together: rows start, rest, stop and are reset alone."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY, NO_ID
from slm_jax.generation.advance import Decoding, State, StepIn, StepOut, stream_sizes
from slm_jax.generation.decode import layers_apart
from slm_jax.generation.prompts import row_keys


class Session:
    """`generation.advance` with its state kept: one push is one step of every active row.

    The first push compiles, no later one does. Tokens of a row are those that `generate` gives for what was forced upon
    it, with the same key: a row draws by its own key and its own steps, whatever the others do.
    """

    def __init__(
        self,
        steps: Decoding,
        params: Any,
        batch: int,
        capacity: int | None,
        key: Key[Array, ""] | Key[Array, "B"],
        *,
        start: tuple[int, ...] | None = None,
    ) -> None:
        """Opens `batch` new rows.

        `params` may be all variables of the model. `capacity`: steps of a row until it is reset; None: no end, for
        models whose caches forget by themselves. `key`: one, split over the rows, or one for each. `start`: what each
        stream of a new row reads first (-1: nothing); without it a row's first step is forced.
        """
        self.batch, self.capacity = batch, capacity
        self.sizes = np.array(stream_sizes(steps.model))
        require(batch >= 1, "batch", batch, "at least one row")
        require(
            start is None or len(start) == len(self.sizes),
            "start",
            start,
            f"an id for each of {len(self.sizes)} streams",
        )
        self._steps, self._keys = steps, row_keys(key, batch)
        self._variables = layers_apart(params)  # once: XLA would cut them in every step
        self._start = None if start is None else jnp.array(start, jnp.int32)
        self._state: State = steps.initial_state(batch, capacity, self._start)
        self._fresh = np.zeros(batch, bool)
        self._written = np.zeros(batch, int)
        self._ended = np.zeros(batch, bool)

    def push(
        self,
        ids: Array | np.ndarray | None = None,
        active: Array | np.ndarray | None = None,
    ) -> StepOut:
        """One step of the rows that are `active` [B] (None: all); a row that rests, or has ended, does not change.

        `ids` [B, K1], or [B] for one stream: -1 where the model draws, an id where it is forced, `EMPTY` where nothing
        is to stand (None: all free). What comes out holds -1 for rows that wrote nothing. Raises `UserError` for wrong
        shapes, for ids outside a stream, for a new row that is not forced and has no start, and for a row without room.
        """
        step_in = StepIn(jnp.asarray(self._told(ids)), jnp.asarray(self._going(active)))
        self._check(np.asarray(step_in.ids), np.asarray(step_in.active))
        fresh, self._fresh = self._fresh, np.zeros(self.batch, bool)
        arguments = (self._steps, self._variables, self._state, step_in, jnp.asarray(fresh), self._start, self._keys)
        out, self._state = push_step(*arguments)
        self._written += np.asarray(out.ids)[:, 0] != -1
        self._ended = np.asarray(out.ended)
        return out

    def reset(self, rows: Bool[Array | np.ndarray, "B"], keys: Key[Array, "B"] | None = None) -> None:
        """The given rows as new, before their next push. They keep their keys unless `keys` has others."""
        rows = np.asarray(rows, bool)
        require(rows.shape == (self.batch,), "rows", rows.shape, f"one flag for each of {self.batch} rows")
        if keys is not None:
            self._keys = jnp.where(jnp.asarray(rows), keys, self._keys)
        self._fresh = self._fresh | rows
        self._written, self._ended = np.where(rows, 0, self._written), self._ended & ~rows

    @property
    def ended(self) -> Bool[np.ndarray, "B"]:
        """Which rows have drawn an end, and rest until they are reset."""
        return self._ended

    def _told(self, ids: Any) -> np.ndarray:
        shape = (self.batch, len(self.sizes))
        if ids is None:
            return np.full(shape, -1, np.int32)
        ids = np.asarray(ids)
        ids = ids[:, None] if ids.ndim == 1 and len(self.sizes) == 1 else ids
        require(ids.shape == shape, "ids", ids.shape, f"must be {shape}: rows and streams")
        require(bool(np.issubdtype(ids.dtype, np.integer)), "ids", str(ids.dtype), "must be integers")
        outside = ids[((ids < -1) & ~np.isin(ids, NO_ID)) | (ids >= self.sizes)]
        rule = f"-1, {EMPTY} (empty) or within the sizes {self.sizes.tolist()}"
        require(outside.size == 0, "ids", outside[:5].tolist(), rule)
        return ids.astype(np.int32)

    def _going(self, active: Any) -> np.ndarray:
        going = np.ones(self.batch, bool) if active is None else np.asarray(active)
        good = going.shape == (self.batch,) and going.dtype == bool
        require(good, "active", f"{going.dtype} {going.shape}", f"one flag for each of {self.batch} rows")
        return going

    def _check(self, ids: np.ndarray, active: np.ndarray) -> None:
        """Whether every row that goes can."""
        going, begins = active & ~self._ended, self._start is None
        blind = np.flatnonzero(going & (self._written == 0) & (ids == -1).any(1)) if begins else np.array([], int)
        require(blind.size == 0, "new rows", blind.tolist(), "have nothing to draw from: force them, or give a start")
        read = self._written + (not begins)
        full = np.flatnonzero(going & (read > self.capacity)) if self.capacity is not None else np.array([], int)
        require(full.size == 0, "rows", full.tolist(), f"have read the {self.capacity} steps there is room for")


@partial(jax.jit, donate_argnums=2)
def push_step(
    steps: Decoding, variables: Any, state: State, step_in: StepIn, fresh: Any, start: Any, keys: Any
) -> tuple[StepOut, State]:
    """`advance` after the reset of the rows that are `fresh`."""
    out, after = steps.advance(variables, step_in, steps.reset(state, fresh, start), keys)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)  # or the next push would compile another program
    return out, after
