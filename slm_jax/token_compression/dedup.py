"""Runs of equal units to (unit, duration) and back: static shapes under jit, and ragged rows in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def dedup(
    ids: Int[Array, "B T"], mask: Bool[Array, "B T"]
) -> tuple[Int[Array, "B T"], Int[Array, "B T"], Bool[Array, "B T"]]:
    """Collapse runs of equal ids in right-padded rows.

    Returns units `[B, T]` (0 where padded), durations `[B, T]` in frames (0 where padded) and their mask `[B, T]`.
    The output keeps length T, which a row without any repetition needs. `repeat` is the exact inverse.
    """
    length = ids.shape[1]
    changes = jnp.concatenate([jnp.ones_like(mask[:, :1]), ids[:, 1:] != ids[:, :-1]], axis=1)
    run = jnp.cumsum(changes & mask, axis=1) - 1
    run = jnp.where(mask, run, length)  # out of range: the scatters below drop padded frames
    rows = jnp.arange(ids.shape[0])[:, None]
    units = jnp.zeros_like(ids).at[rows, run].set(ids, mode="drop")
    durations = jnp.zeros_like(ids).at[rows, run].add(1, mode="drop")
    return units, durations, durations > 0


def repeat(
    units: Int[Array, "B S"], durations: Int[Array, "B S"], total: int
) -> tuple[Int[Array, "B {total}"], Bool[Array, "B {total}"]]:
    """Repeat each unit by its duration into rows of `total` frames; returns ids (0 where padded) and mask.

    Units of duration 0, such as padding, vanish. Frames beyond `total` are cut.
    """
    ends = jnp.cumsum(durations, axis=1)
    frame = jnp.arange(total)
    source = jax.vmap(lambda row: jnp.searchsorted(row, frame, side="right"))(ends)
    mask = source < units.shape[1]
    ids = jnp.take_along_axis(units, jnp.minimum(source, units.shape[1] - 1), axis=1)
    return jnp.where(mask, ids, 0), mask


def dedup_row(ids: Int[np.ndarray, "T"]) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "S"]]:
    """Units and durations (int32, frames) of one row without padding; an empty row gives two empty rows."""
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(ids), 1), bool), ids[1:] != ids[:-1]]))
    return ids[starts], np.diff(starts, append=len(ids)).astype(np.int32)


def repeat_row(units: Int[np.ndarray, "S"], durations: Int[np.ndarray, "S"]) -> Int[np.ndarray, "T"]:
    """The row whose runs are given: the inverse of `dedup_row`."""
    return np.repeat(units, durations)
