"""Coarse codebooks of a stretch of time, then its fine ones (Borsos et al. 2022, section III-C)."""

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.schemes.table import Scheme


class CoarseFirst(Scheme):
    """All codes of the first `coarse` codebooks, frame by frame and each at a step of its own, then all others.

    `chunk`: frames of a stretch after whose coarse codes its fine ones follow; None: the whole.
    """

    coarse: int
    chunk: int | None = None

    def __post_init__(self) -> None:
        require(self.coarse > 0, "coarse", self.coarse, "at least one codebook")
        require(self.chunk is None or self.chunk > 0, "chunk", self.chunk, "at least one frame")

    def table(self, frames: int, codebooks: int) -> Int[np.ndarray, "S K 2"]:
        """A step for every code; all other entries are empty."""
        time, codebook = (x.ravel() for x in np.mgrid[:frames, :codebooks])
        stretch = time // (self.chunk or max(frames, 1))
        order = np.lexsort((codebook, time, codebook >= self.coarse, stretch))
        time, codebook = time[order], codebook[order]
        entry = np.broadcast_to(np.arange(codebooks), (frames * codebooks, codebooks))
        return np.stack([np.where(entry == codebook[:, None], time[:, None], -1), entry], axis=-1)

    def content(self, steps: int, entries: int) -> tuple[int, int]:
        """As many codebooks as entries."""
        require(steps % entries == 0, "steps", steps, f"a multiple of the {entries} steps of a frame")
        return steps // entries, entries
