"""Which entries of a sequence look at which, said in a form that fused attention kernels understand."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from slm_jax.core.errors import require
from slm_jax.core.types import pytree_dataclass, static


@pytree_dataclass
class Visibility:
    """An entry sees those of its own segment; with `causal` none that comes later; of these the last `window` only.

    A window counts all entries of the row, those of padding between real ones too (caches count real ones only).
    `segments`: equal numbers belong together; None puts all in one. Padding is a segment of its own (0 by custom).
    `prefix`: the first entries of each segment, which see each other both ways and whatever the window (prefix LM);
    `first_entries` makes it. `block`, `blocks`: time runs in blocks, not in entries: an entry sees all of its own
    block and of earlier ones, and a `window` counts blocks, its own among them (chunked streaming). `block` cuts the
    row into equal parts of so many entries; `blocks` numbers them entry by entry, from early to late. Raises
    `UserError` for a prefix or blocks without `causal`, and for both together.
    """

    segments: Int[Array, "B T"] | None = None
    causal: bool = static(default=True)
    window: int | None = static(default=None)
    prefix: Bool[Array, "B T"] | None = None
    block: int | None = static(default=None)
    blocks: Int[Array, "B T"] | None = None

    def __post_init__(self) -> None:
        kinds = [name for name in ("prefix", "block", "blocks") if getattr(self, name) is not None]
        require(len(kinds) < 2, "visibility", ", ".join(kinds), "only one of these can say who sees what comes later")
        require(self.causal or not kinds, "causal", self.causal, f"a {''.join(kinds)} says what a causal entry sees")
        require(self.block is None or self.block >= 1, "block", self.block, "must be at least 1")

    @property
    def plain(self) -> bool:
        """Whether segments, `causal` and `window` say it all."""
        return self.prefix is None and self.block is None and self.blocks is None

    def dense(
        self, length: int, first: Int[Array, ""] | int = 0, queries: int | None = None
    ) -> Bool[Array, "_ Q T"] | None:
        """Entry [b, q, s]: does entry `first + q` see entry s? None where all see all.

        The first axis is 1 where rows do not differ. `queries` entries from `first` on; all of `length` when None.
        """
        key = jnp.arange(length)
        query = first + jnp.arange(length if queries is None else queries)
        sees = None
        if self.causal:
            sees = within_window(self._times(query)[:, :, None], self._times(key)[:, None, :], self.window)
        if self.prefix is not None and sees is not None:
            sees = sees | (jnp.take(self.prefix, query, axis=1)[:, :, None] & self.prefix[:, None, :])
        if self.segments is None:
            return sees
        same = jnp.take(self.segments, query, axis=1)[:, :, None] == self.segments[:, None, :]
        return same if sees is None else sees & same

    def _times(self, entries: Int[Array, "Q"]) -> Int[Array, "_ Q"]:
        """What is compared to tell earlier from later."""
        if self.blocks is not None:
            return jnp.take(self.blocks, entries, axis=1)
        return (entries if self.block is None else entries // self.block)[None]

    def apart(self, length: int) -> tuple["Visibility", "Visibility"]:
        """With a prefix: what entries behind it see, and what those in it see, each without a prefix of its own."""
        assert self.prefix is not None  # for the type checker: asked with a prefix only
        segments = jnp.zeros((self.prefix.shape[0], length), jnp.int32) if self.segments is None else self.segments
        return Visibility(self.segments, window=self.window), Visibility(2 * segments + self.prefix, causal=False)


def visible(
    mask: Bool[Array, "B T"] | None,
    segment_ids: Int[Array, "B T"] | None,
    window: int | None = None,
    causal: bool = True,
) -> Visibility:
    """Visibility within segments of real entries (`mask`; None: all are real)."""
    segments = segment_ids
    if mask is not None:
        segments = mask.astype(jnp.int32) if segments is None else jnp.where(mask, segments + 1, 0)
    return Visibility(segments, causal=causal, window=window)


def first_entries(lengths: Int[Array, "B"] | Int[Array, "B T"], positions: Int[Array, "#B T"]) -> Bool[Array, "B T"]:
    """The prefix of each row, or of each segment of it: entries whose position is below a length.

    `positions` count from 0 in each row or segment (`nn.positions`). `lengths` `[B]` holds for all segments of a row;
    `[B, T]` says for each entry how long the prefix of its segment is.
    """
    return positions < (lengths[:, None] if lengths.ndim == 1 else lengths)


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
