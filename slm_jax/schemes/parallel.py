"""Every step holds all codebooks of one frame."""

import dataclasses

import numpy as np
from jaxtyping import Int

from slm_jax.core.types import Codes, Streams
from slm_jax.schemes import table


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Entry k of step t is codebook k of frame t (dGSLM's channels; MusicGen calls it parallel)."""

    def table(self, frames: int, codebooks: int) -> Int[np.ndarray, "T K 2"]:
        """(t, k) at step t, entry k."""
        return np.stack(np.meshgrid(np.arange(frames), np.arange(codebooks), indexing="ij"), axis=-1)

    def content(self, steps: int, entries: int) -> tuple[int, int]:
        """As many frames as steps, as many codebooks as entries."""
        return steps, entries

    def arrange(self, codes: Codes) -> Streams:
        """Codes as streams, one for each codebook."""
        return table.arrange(self, codes)

    def restore(self, streams: Streams) -> Codes:
        """The codes of such streams."""
        return table.restore(self, streams)
