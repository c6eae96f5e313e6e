"""Every step holds all codebooks of one frame."""

import numpy as np
from jaxtyping import Int

from slm_jax.schemes.table import Scheme


class Parallel(Scheme):
    """Entry k of step t is codebook k of frame t (dGSLM's channels; MusicGen calls it parallel)."""

    def table(self, frames: int, codebooks: int) -> Int[np.ndarray, "T K 2"]:
        """(t, k) at step t, entry k."""
        return np.stack(np.meshgrid(np.arange(frames), np.arange(codebooks), indexing="ij"), axis=-1)

    def content(self, steps: int, entries: int) -> tuple[int, int]:
        """As many frames as steps, as many codebooks as entries."""
        return steps, entries


class TemporalDepth(Parallel):
    """The same, but a smaller model writes the entries of a step one by one (Borsos et al. 2023; Moshi)."""

    ordered = True
