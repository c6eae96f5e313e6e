"""A scheme as data: a table `[S, R, 2]` of (time, codebook) for each entry of each step of a sequence.

Whoever writes a scheme writes its table; what is here moves codes by it, batches under jit and ragged rows in NumPy,
and tells from it alone what a listener waits for.
"""

from abc import abstractmethod

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Streams

Table = Int[np.ndarray, "S R 2"]
"""-1 as time: the entry holds nothing."""


class Scheme(Config):
    """What tells one scheme from another is its table. Entry k of a step is codebook k in all of them.

    `ordered`: the entries of a step are written one after the other, each given those before it.
    """

    ordered = False

    @abstractmethod
    def table(self, frames: int, codebooks: int) -> Table:
        """Where every code of so many frames goes; each stands in it once."""

    @abstractmethod
    def content(self, steps: int, entries: int) -> tuple[int, int]:
        """Frames and codebooks of a sequence of so many steps with so many entries: the inverse of `table`'s shape."""

    def arrange(self, codes: Codes) -> Streams:
        """Codes in this order; entries without a code are 0 and not valid."""
        table = self.table(*codes.ids.shape[1:])
        time, codebook = table[..., 0], table[..., 1]
        valid = codes.mask[:, np.maximum(time, 0)] & (time >= 0)
        ids = jnp.where(valid, codes.ids[:, np.maximum(time, 0), codebook], 0)
        return Streams(ids, valid, valid.astype(jnp.float32))

    def restore(self, streams: Streams) -> Codes:
        """The inverse of `arrange`. A frame of which a code is not valid is padding."""
        frames, codebooks = self.content(*streams.ids.shape[1:])
        step, entry = places(self.table(frames, codebooks), frames, codebooks)
        mask = streams.valid[:, step, entry].all(-1)
        return Codes(jnp.where(mask[..., None], streams.ids[:, step, entry], 0), mask)

    def arrange_row(self, ids: Int[np.ndarray, "T K"]) -> tuple[Int[np.ndarray, "S R"], Bool[np.ndarray, "S R"]]:
        """Entries of one row without padding, and which of them hold a code."""
        table = self.table(*ids.shape)
        valid = table[..., 0] >= 0
        return np.where(valid, ids[np.maximum(table[..., 0], 0), table[..., 1]], 0).astype(ids.dtype), valid

    def restore_row(self, ids: Int[np.ndarray, "S R"]) -> Int[np.ndarray, "T K"]:
        """The row whose entries these are: the inverse of `arrange_row`."""
        frames, codebooks = self.content(*ids.shape)
        return ids[places(self.table(frames, codebooks), frames, codebooks)]

    def begins(self, frames: int, codebooks: int) -> Int[np.ndarray, "T"]:
        """The step at which the first code of each frame stands."""
        step, _ = places(self.table(frames, codebooks), frames, codebooks)
        return step.min(1)

    def latency(self, frames: int, codebooks: int) -> int:
        """Frames that must have begun, beyond the frame itself, before all its codes are there; the most of so many."""
        table = self.table(frames, codebooks)
        begun = np.maximum.accumulate(table[..., 0].max(1, initial=-1))
        step, _ = places(table, frames, codebooks)
        return int((begun[step.max(1)] - np.arange(frames)).max(initial=0))


def places(table: Table, frames: int, codebooks: int) -> tuple[Int[np.ndarray, "T K"], Int[np.ndarray, "T K"]]:
    """Step and entry of every code; raises `UserError` for a table that lacks one or names it twice."""
    step, entry = np.nonzero(table[..., 0] >= 0)
    code = table[step, entry, 0] * codebooks + table[step, entry, 1]
    once = np.array_equal(np.sort(code), np.arange(frames * codebooks))
    require(once, "table", table.shape, f"names each of {codebooks} codebooks of {frames} frames once")
    order = np.argsort(code)
    return step[order].reshape(frames, codebooks), entry[order].reshape(frames, codebooks)
