"""The codebooks of a frame one after the other, or some of them at once (Borsos et al. 2022; Copet et al. 2023)."""

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.schemes.table import Scheme


class Flattened(Scheme):
    """A frame takes several steps. `groups[k]`: at which of them codebook k stands; None: each at one of its own.

    None interleaves codebooks along time; (0, 1, 1, 1) is partly flattened: the first alone, then the others.
    """

    groups: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        groups = self.groups
        fits = groups is None or (bool(groups) and set(groups) == set(range(max(groups) + 1)))
        require(fits, "groups", groups, "0, 1 ... without a gap, one for each codebook")

    def table(self, frames: int, codebooks: int) -> Int[np.ndarray, "S K 2"]:
        """As many steps for each frame as there are groups; entry k is empty but at its own."""
        groups = self._groups(codebooks)
        step, codebook = np.mgrid[: frames * (int(groups.max()) + 1), :codebooks]
        time, place = np.divmod(step, groups.max() + 1)
        return np.stack([np.where(place == groups, time, -1), codebook], axis=-1)

    def content(self, steps: int, entries: int) -> tuple[int, int]:
        """As many codebooks as entries."""
        each = int(self._groups(entries).max()) + 1
        require(steps % each == 0, "steps", steps, f"a multiple of the {each} steps of a frame")
        return steps // each, entries

    def _groups(self, codebooks: int) -> Int[np.ndarray, "K"]:
        groups = range(codebooks) if self.groups is None else self.groups
        require(len(groups) == codebooks, "codebooks", codebooks, f"there are groups for {len(groups)}")
        return np.array(groups)
