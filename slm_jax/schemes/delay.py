"""Codebook k some steps later than its frame (Copet et al. 2023: MusicGen; Moshi's acoustic delay)."""

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.schemes.table import Scheme


class Delay(Scheme):
    """Entry k of step t is codebook k of frame t - `delays[k]`; MusicGen's are 0, 1, 2 ..., Moshi's 0, 1, 1 ..."""

    delays: tuple[int, ...]

    def __post_init__(self) -> None:
        known = bool(self.delays) and min(self.delays) == 0
        require(known, "delays", self.delays, "0 or more for each codebook, and 0 for one of them")

    def table(self, frames: int, codebooks: int) -> Int[np.ndarray, "S K 2"]:
        """As many steps more than frames as the longest delay."""
        self._require(codebooks)
        step, codebook = np.mgrid[: frames + max(self.delays) if frames else 0, :codebooks]
        time = step - np.array(self.delays)
        return np.stack([np.where((time >= 0) & (time < frames), time, -1), codebook], axis=-1)

    def content(self, steps: int, entries: int) -> tuple[int, int]:
        """As many codebooks as entries."""
        self._require(entries)
        rule = f"none, or more than the longest delay {max(self.delays)}"
        require(steps == 0 or steps > max(self.delays), "steps", steps, rule)
        return max(0, steps - max(self.delays)), entries

    def _require(self, codebooks: int) -> None:
        rule = f"there are {len(self.delays)} delays"
        require(codebooks == len(self.delays), "codebooks", codebooks, rule)
