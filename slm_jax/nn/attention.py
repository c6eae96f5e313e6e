"""Attention: one function on heads, and the multi-head module with its key-value cache."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require
from slm_jax.core.types import pytree_dataclass
from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import RMSNorm
from slm_jax.nn.positions import Rotation, rotate

Dropout = Callable[[jax.Array], jax.Array]


def attend(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B S G C"],
    v: Float[Array, "B S G C"],
    *,
    bias: Float[Array, "#B #H #T #S"] | None = None,
    mask: Bool[Array, "#B #T #S"] | None = None,
    scale: float | None = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T H C"]:
    """`softmax(scale * q k + bias) v` with the softmax in float32; H / G query heads share each key head.

    `mask` and `bias` may have size 1 on any axis; `scale` is `1 / sqrt(C)` unless given. A query that may look at
    nothing gets a finite value that means nothing. `dropout` acts on the weights.
    """
    return attend_by_head(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), bias, mask, scale, dropout)


def attend_by_head(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B G S C"],
    v: Float[Array, "B G S C"],
    bias: Float[Array, "#B #H #T #S"] | None = None,
    mask: Bool[Array, "#B #T #S"] | None = None,
    scale: float | None = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T H C"]:
    """`attend` with the keys of each head side by side, as caches hold them: products read them where they lie."""
    batch, queries, heads, width = q.shape
    groups = k.shape[1]
    require(heads % groups == 0, "heads", heads, f"must be a multiple of the {groups} key heads")
    # The small queries are turned, not the scores, and the scores have four axes: XLA on CPU copies those of
    # "btgrc,bgsc->bgrts" in both directions, and takes three times as long over softmax and gradient with five axes.
    q = q.reshape(batch, queries, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, groups, -1, width)
    scores = jnp.einsum("bgqc,bgsc->bgqs", q, k, preferred_element_type=at_least_float32(q.dtype))
    scores = scores.reshape(batch, heads, queries, -1) * (width**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, jnp.finfo(scores.dtype).min)
    # softmax whose division comes after the product with the values: its gradient then needs one pass over [T, S] less
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    if dropout is not None:
        weights = dropout(weights)
    # as a plain product of matrices: einsum turns the operands round, and XLA then copies the values at every step
    weights = weights.reshape(batch, groups, -1, k.shape[2]).astype(v.dtype)
    y = jnp.matmul(weights, v, preferred_element_type=total.dtype)
    y = (y / total.reshape(batch, groups, -1, 1)).astype(v.dtype)
    y = y.reshape(batch, groups, heads // groups, queries, width)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, width)


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


@pytree_dataclass
class KVCache:
    """Keys and values of the first `length[b]` real entries of each row, packed to the left."""

    keys: Float[Array, "B G S C"]
    values: Float[Array, "B G S C"]
    length: Int[Array, "B"]

    @property
    def capacity(self) -> int:
        """Entries that fit."""
        return self.keys.shape[2]

    def slots(self, mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Where new entries go, which is also their position; masked ones get the slot of the last real one."""
        return jnp.maximum(self.length[:, None] + jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)

    def append(
        self, keys: Float[Array, "B T G C"], values: Float[Array, "B T G C"], mask: Bool[Array, "B T"]
    ) -> "KVCache":
        """With the entries where `mask` holds added; those beyond the capacity are dropped."""
        rows = jnp.arange(mask.shape[0])[:, None]
        slots = jnp.where(mask, self.slots(mask), self.capacity)

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return old.at[rows, :, slots].set(new.astype(old.dtype), mode="drop")

        length = jnp.minimum(self.length + mask.sum(-1, dtype=jnp.int32), self.capacity)
        return KVCache(put(self.keys, keys), put(self.values, values), length)


class Attention(nn.Module):
    """Multi-head attention with grouped key-value heads, over `x` itself or over a `context`.

    Sub-modules `query`, `key`, `value`, `out` are separate, which LoRA and published checkpoints want.
    `window`: a step sees the last so many steps, itself counted (only in causal use). `qk_norm`: an RMS norm of that
    epsilon over each head's channels (Qwen3).
    """

    heads: int
    head_width: int
    kv_heads: int | None = None
    qkv_bias: bool = True
    out_bias: bool = True
    window: int | None = None
    qk_norm: float | None = None
    dropout: float = 0.0
    kernel_init: Callable | None = None
    out_kernel_init: Callable | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        context: Float[Array, "B S E"] | None = None,
        *,
        mask: Bool[Array, "#B #T #S"] | None = None,
        bias: Float[Array, "#B #H #T #S"] | None = None,
        by: Rotation | None = None,
        cache: KVCache | None = None,
        real: Bool[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """The output and the new cache (None without one).

        With a `cache`, the entries of `x` where `real` holds are appended to it, and each sees what is in the cache
        up to itself: `mask` is not needed then. Without one, `mask` says what sees what.
        """
        q = self._project("query", x, self.heads, "heads")
        source = x if context is None else context
        k = self._project("key", source, self.kv_heads or self.heads, "kv_heads")
        v = self._project("value", source, self.kv_heads or self.heads, "kv_heads")
        if self.qk_norm is not None:
            q = RMSNorm(self.qk_norm, dtype=self.dtype, param_dtype=self.param_dtype, name="query_norm")(q)
            k = RMSNorm(self.qk_norm, dtype=self.dtype, param_dtype=self.param_dtype, name="key_norm")(k)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        if cache is not None:
            real = jnp.ones(x.shape[:2], bool) if real is None else real
            slots, cache = cache.slots(real), cache.append(k, v, real)
            mask = within_window(slots[:, :, None], jnp.arange(cache.capacity)[None, None], self.window)
            k, v = cache.keys.astype(self.dtype), cache.values.astype(self.dtype)
        else:
            k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
        drop = partial(nn.Dropout(self.dropout, name="dropout"), deterministic=deterministic)
        y = attend_by_head(q, k, v, bias, mask, dropout=drop)
        return self._out(y, x.shape[-1]), cache

    def _project(self, name: str, x: jax.Array, heads: int, axis: str) -> jax.Array:
        return Linear(
            (heads, self.head_width),
            in_names=("embed",),
            out_names=(axis, "head"),
            use_bias=self.qkv_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x)

    def _out(self, y: jax.Array, width: int) -> jax.Array:
        return Linear(
            width,
            in_names=("heads", "head"),
            out_names=("embed",),
            use_bias=self.out_bias,
            kernel_init=self.out_kernel_init or self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="out",
        )(y)


def empty_cache(batch: int, capacity: int, kv_heads: int, head_width: int, dtype: Any) -> KVCache:
    """A cache for `capacity` entries a row, with none in it."""
    shape = (batch, kv_heads, capacity, head_width)
    return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((batch,), jnp.int32))


def reset_cache(cache: KVCache, rows: Bool[Array, "B"]) -> KVCache:
    """With the rows where `rows` holds emptied."""
    return KVCache(cache.keys, cache.values, jnp.where(rows, 0, cache.length))
