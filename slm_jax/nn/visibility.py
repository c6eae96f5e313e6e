"""Which entries of a sequence look at which, said in a form that fused attention kernels understand."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from slm_jax.core.types import pytree_dataclass, static


@pytree_dataclass
class Visibility:
    """An entry sees those of its own segment; with `causal` none that comes later; of these the last `window` only.

    `segments`: equal numbers belong together; None puts all in one. Padding is a segment of its own (0 by custom).
    """

    segments: Int[Array, "B T"] | None = None
    causal: bool = static(default=True)
    window: int | None = static(default=None)

    def dense(
        self, length: int, first: Int[Array, ""] | int = 0, queries: int | None = None
    ) -> Bool[Array, "_ Q T"] | None:
        """Entry [b, q, s]: does entry `first + q` see entry s? None where all see all.

        The first axis is 1 without segments. `queries` entries from `first` on; all of `length` when None.
        """
        key = jnp.arange(length)
        query = first + jnp.arange(length if queries is None else queries)
        sees = None
        if self.causal:
            sees = within_window(query[None, :, None], key[None, None, :], self.window)
        if self.segments is None:
            return sees
        same = jnp.take(self.segments, query, axis=1)[:, :, None] == self.segments[:, None, :]
        return same if sees is None else sees & same


def visible(
    mask: Bool[Array, "B T"] | None, segment_ids: Int[Array, "B T"] | None, window: int | None = None
) -> Visibility:
    """Causal visibility within segments of real entries (`mask`; None: all are real)."""
    segments = segment_ids
    if mask is not None:
        segments = mask.astype(jnp.int32) if segments is None else jnp.where(mask, segments + 1, 0)
    return Visibility(segments, causal=True, window=window)


def causal_mask(queries: int, window: int | None = None) -> Bool[Array, "1 T T"]:
    """Entry [t, s]: may step t look at step s? Itself and what came before, the last `window` steps if given."""
    t = jnp.arange(queries)
    return within_window(t[None, :, None], t[None, None, :], window)


def within_window(
    query: Int[Array, "#B T 1"], key: Int[Array, "#B 1 S"], window: int | None = None
) -> Bool[Array, "_ T S"]:
    """Keys that are not later than the query and, with a `window`, among the last `window` of these."""
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def segment_mask(segment_ids: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Entry [t, s]: do both belong to one segment?"""
    return segment_ids[:, :, None] == segment_ids[:, None, :]
