"""What may be drawn and what ends a row, as arrays."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from slm_jax.core.errors import require
from slm_jax.core.types import pytree_dataclass, static
from slm_jax.generation.sampling import SamplingConfig


@pytree_dataclass
class Rules:
    """Legal tokens of every stream by phase, and the ids that end a row.

    A row that has written n entries is in phase n of `legal` while there is one, and after it walks in a circle through
    the last `cycle` phases: 1 stays in the last, P goes round through all. None: everything is legal. With `of_drawn`
    n counts what was drawn and not what a prompt held, so that rows whose prompts differ in length begin alike. A row
    ends when one of `ends` is drawn in stream 0; an end that was forced upon it ends nothing, so that a prompt may hold
    one.
    """

    legal: Bool[Array | np.ndarray, "P K1 V"] | None
    ends: Int[Array | np.ndarray, "E"]
    cycle: int = static(default=1)
    of_drawn: bool = static(default=False)

    def now(self, written: Int[Array, "B"], drawn: Int[Array, "#B"]) -> Bool[Array, "#B K1 V"] | None:
        """What is legal for rows that have written so many entries, so many of which they drew."""
        if self.legal is None or len(self.legal) == 1:
            return None if self.legal is None else jnp.asarray(self.legal)
        count, first = drawn if self.of_drawn else written, len(self.legal) - self.cycle
        phase = jnp.where(count < first, count, first + (count - first) % self.cycle)
        return jnp.asarray(self.legal)[phase]

    def are_ends(self, ids: Int[Array, "B"]) -> Bool[Array, "B"]:
        """Which of these ids end a row."""
        return (ids[:, None] == jnp.asarray(self.ends)).any(-1)

    def without_ends(self, vocabulary: int) -> Bool[Array, "V"]:
        """True for ids that end nothing."""
        return jnp.ones(vocabulary, bool).at[jnp.asarray(self.ends)].set(False)

    def fit(self, sizes: Sequence[int]) -> None:
        """Raises `UserError` unless the arrays are for streams of these sizes."""
        ends = np.asarray(self.ends)
        rule = f"must lie in [0, {sizes[0]})"
        require(bool(((ends >= 0) & (ends < sizes[0])).all()), "end", ends.tolist(), rule)
        if self.legal is None:
            return
        shape, phases = self.legal.shape, len(self.legal)
        require(shape[1:] == (len(sizes), max(sizes)), "legal", shape, f"must be [P, {len(sizes)}, {max(sizes)}]")
        require(1 <= self.cycle <= phases, "cycle", self.cycle, f"must lie within the {phases} phases")


def rules_of(config: SamplingConfig, sizes: Sequence[int]) -> Rules:
    """`end`, `ends` and `forbidden` of `config` as arrays, for streams of these sizes (both are read in stream 0).

    Where sizes differ, a stream's ids end at its own.
    """
    ends = np.array(config.all_ends, np.int32)
    if not config.forbidden and len(set(sizes)) == 1:
        return Rules(None, ends)
    legal = np.arange(max(sizes)) < np.array(sizes)[:, None]
    legal[0, list(config.forbidden)] = False
    return Rules(legal[None], ends)
