"""Keys and values that attention keeps from one call to the next. The cache says who is seen, attention does not.

    KVCache        grows up to a capacity; the slot of an entry is its position
    RingCache      the last entries within a window, for sessions of any length; positions stay absolute
    ContextCache   keys and values of a context, made once, for cross-attention
    CrossCache     what a layer keeps that attends to its own sequence and to a context

All answer `append(keys, values, real) -> (cache, keys, values, sees)` and `reset(rows)`. What is handed to attention
lies as `[B, G, S, C]`, where the products read it; `sees[b, t, s]` says whether new entry t sees s. Every leaf has the
rows as its first axis, so that rows can be picked or reordered by `jax.tree.map`. Entries where `real` is False leave
no trace and may stand anywhere; what they get means nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require
from slm_jax.core.types import pytree_dataclass, static
from slm_jax.nn.visibility import within_window
from slm_jax.parallel.placement import platform


class Appended(NamedTuple):
    """A cache after an append, and what its new entries look at: keys, values and who of them is seen (None: all)."""

    cache: Any
    keys: Float[Array, "B G S C"]
    values: Float[Array, "B G S C"]
    sees: Bool[Array, "B #T S"] | None


@pytree_dataclass
class KVCache:
    """Keys and values of the first `length[b]` real entries of each row, packed to the left.

    With `window` an entry sees the last so many, itself counted.
    """

    keys: Float[Array, "B G S C"]
    values: Float[Array, "B G S C"]
    length: Int[Array, "B"]
    window: int | None = static(default=None)

    @property
    def capacity(self) -> int:
        """Entries that fit."""
        return self.keys.shape[2]

    def positions(self, real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Where the next entries stand in their rows; masked ones get the position of the last real one before."""
        return next_positions(self.length, real)

    def append(
        self, keys: Float[Array, "B T G C"], values: Float[Array, "B T G C"], real: Bool[Array, "B T"]
    ) -> Appended:
        """With the entries where `real` holds added; those beyond the capacity are dropped."""
        positions = self.positions(real)
        slots = jnp.where(real, positions, self.capacity)
        kept, held = put(self.keys, keys, slots), put(self.values, values, slots)
        length = jnp.minimum(self.length + real.sum(-1, dtype=jnp.int32), self.capacity)
        sees = within_window(positions[:, :, None], jnp.arange(self.capacity)[None, None], self.window)
        return Appended(KVCache(kept, held, length, self.window), kept, held, sees)

    def reset(self, rows: Bool[Array, "B"]) -> "KVCache":
        """With the rows where `rows` holds emptied."""
        return KVCache(self.keys, self.values, jnp.where(rows, 0, self.length), self.window)


@pytree_dataclass
class RingCache:
    """Keys and values of the last real entries of each row, of which an entry sees the last `window`, itself counted.

    The entry at absolute position p lies in slot p mod R, R being the number of slots, so that the positions of all
    slots follow from `length`, the real entries so far. R is at least the window. Appends of up to R + 1 - window
    entries read the ring where it lies; longer ones, of any length, read the old ring with the new entries behind it.
    """

    keys: Float[Array, "B G R C"]
    values: Float[Array, "B G R C"]
    length: Int[Array, "B"]
    window: int = static()

    @property
    def slots(self) -> int:
        """Entries that are kept."""
        return self.keys.shape[2]

    def positions(self, real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Absolute positions of the next entries; masked ones get that of the last real one before."""
        return next_positions(self.length, real)

    def held(self) -> Int[Array, "B R"]:
        """The absolute position that each slot holds, negative where it holds none."""
        last = self.length[:, None] - 1
        return last - (last - jnp.arange(self.slots)) % self.slots

    def append(
        self, keys: Float[Array, "B T G C"], values: Float[Array, "B T G C"], real: Bool[Array, "B T"]
    ) -> Appended:
        """With the entries where `real` holds added in place of the oldest."""
        positions, length = self.positions(real), self.length + real.sum(-1, dtype=jnp.int32)
        lasting = real & (positions >= length[:, None] - self.slots)  # of many new ones only the last: no slot twice
        slots = jnp.where(lasting, positions % self.slots, self.slots)
        cache = RingCache(put(self.keys, keys, slots), put(self.values, values, slots), length, self.window)
        if real.shape[1] <= self.slots + 1 - self.window:
            at, kept, held = cache.held(), cache.keys, cache.values
        else:  # the first of the new entries still sees what the last ones replace
            at = jnp.concatenate([self.held(), jnp.where(real, positions, -1)], axis=1)
            kept, held = behind(self.keys, keys), behind(self.values, values)
        sees = within_window(positions[:, :, None], at[:, None, :], self.window) & (at >= 0)[:, None, :]
        return Appended(cache, kept, held, sees)

    def reset(self, rows: Bool[Array, "B"]) -> "RingCache":
        """With the rows where `rows` holds emptied; their next entry is at position 0."""
        return RingCache(self.keys, self.values, jnp.where(rows, 0, self.length), self.window)


@pytree_dataclass
class ContextCache:
    """Keys and values of the context that cross-attention looks at: `mask` says which of its entries are real.

    It has no positions and does not grow: `append` changes nothing, and every entry sees the whole context.
    """

    keys: Float[Array, "B G S C"]
    values: Float[Array, "B G S C"]
    mask: Bool[Array, "B S"]

    def append(self, keys: Any, values: Any, real: Any) -> Appended:
        """The context as it is; what is handed in is not looked at."""
        return Appended(self, self.keys, self.values, self.mask[:, None, :])

    def filled(self, keys: Any, values: Any, mask: Any) -> "ContextCache":
        """With another context in the place of this one (`[B, S, G, C]`)."""
        return context_cache(keys, values, mask, self.keys.dtype)

    def reset(self, rows: Bool[Array, "B"]) -> "ContextCache":
        """With the rows where `rows` holds without a context: what they get means nothing until they have one."""
        return ContextCache(self.keys, self.values, self.mask & ~rows[:, None])


@pytree_dataclass
class CrossCache:
    """What a layer with cross-attention keeps: `own` of its sequence, `context` of what it listens to."""

    own: KVCache | RingCache
    context: ContextCache

    def positions(self, real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Those of the layer's own sequence."""
        return self.own.positions(real)

    def reset(self, rows: Bool[Array, "B"]) -> "CrossCache":
        """With the rows where `rows` holds emptied and without a context."""
        return CrossCache(self.own.reset(rows), self.context.reset(rows))


Cache = KVCache | RingCache | ContextCache


def empty_cache(
    batch: int, capacity: int, kv_heads: int, head_width: int, dtype: Any, window: int | None = None
) -> KVCache:
    """A growing cache for `capacity` entries a row, with none in it."""
    return KVCache(*_blank(batch, kv_heads, capacity, head_width, dtype), jnp.zeros((batch,), jnp.int32), window)


def empty_ring(batch: int, window: int, kv_heads: int, head_width: int, dtype: Any, at_once: int = 1) -> RingCache:
    """A ring for a `window`, with nothing in it, where appends of up to `at_once` entries need no copy of it."""
    require(window >= 1, "window", window, "must be at least 1")
    require(at_once >= 1, "at_once", at_once, "must be at least 1")
    blank = _blank(batch, kv_heads, window + at_once - 1, head_width, dtype)
    return RingCache(*blank, jnp.zeros((batch,), jnp.int32), window)


def context_cache(
    keys: Float[Array, "B S G C"], values: Float[Array, "B S G C"], mask: Bool[Array, "B S"] | None, dtype: Any
) -> ContextCache:
    """A context as its keys and values; `mask` None: all of it is real."""
    mask = jnp.ones(keys.shape[:2], bool) if mask is None else mask
    keys, values = (jnp.swapaxes(x, 1, 2).astype(dtype) for x in (keys, values))
    return ContextCache(keys, values, mask)


def empty_context(batch: int, entries: int, kv_heads: int, head_width: int, dtype: Any) -> ContextCache:
    """What `Attention` fills when it is called with a context of so many entries."""
    return ContextCache(*_blank(batch, kv_heads, entries, head_width, dtype), jnp.zeros((batch, entries), bool))


def next_positions(length: Int[Array, "B"], real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Positions of new entries behind `length` others; masked ones get that of the last real one before."""
    return jnp.maximum(length[:, None] + jnp.cumsum(real, axis=-1, dtype=jnp.int32) - 1, 0)


def put(old: Float[Array, "B G S C"], new: Float[Array, "B T G C"], slots: Int[Array, "B T"]) -> jax.Array:
    """`old` with entry t of `new` in slot `slots[b, t]`; slots beyond the last are dropped.

    XLA on CPU makes an update of a slice from a scatter of a single entry, and copies the cache four times for it:
    there a second one that is dropped goes with it.
    """
    if slots.size == 1 and platform() == "cpu":
        slots = jnp.pad(slots, ((0, 0), (0, 1)), constant_values=old.shape[2])
        new = jnp.pad(new, ((0, 0), (0, 1), (0, 0), (0, 0)))
    rows = jnp.arange(slots.shape[0])[:, None]
    return old.at[rows, :, slots].set(new.astype(old.dtype), mode="drop")


def behind(old: Float[Array, "B G R C"], new: Float[Array, "B T G C"]) -> Float[Array, "B G S C"]:
    """Old entries with new ones behind them."""
    return jnp.concatenate([old, jnp.swapaxes(new, 1, 2).astype(old.dtype)], axis=2)


def _blank(batch: int, heads: int, entries: int, width: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    shape = (batch, heads, entries, width)
    return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)
