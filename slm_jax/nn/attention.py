"""Multi-head attention and its key-value cache."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.types import pytree_dataclass
from slm_jax.nn.attend import attend_by_head
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import RMSNorm
from slm_jax.nn.positions import Rotation, rotate
from slm_jax.nn.self_attention import attend_self
from slm_jax.nn.visibility import Visibility, within_window
from slm_jax.parallel.placement import platform


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
        added = mask.sum(-1, dtype=jnp.int32)
        slots = jnp.where(mask, self.slots(mask), self.capacity)
        if slots.size == 1 and platform() == "cpu":  # XLA would make a slice of it there, and copy the cache four times
            slots = jnp.pad(slots, ((0, 0), (0, 1)), constant_values=self.capacity)
            keys, values = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (keys, values))
        rows = jnp.arange(mask.shape[0])[:, None]

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return old.at[rows, :, slots].set(new.astype(old.dtype), mode="drop")

        length = jnp.minimum(self.length + added, self.capacity)
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
        mask: Visibility | Bool[Array, "#B #T #S"] | None = None,
        bias: Float[Array, "#B #H #T #S"] | None = None,
        by: Rotation | None = None,
        cache: KVCache | None = None,
        real: Bool[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """The output and the new cache (None without one).

        With a `cache`, the entries of `x` where `real` holds are appended to it, and each sees what is in the cache
        up to itself: `mask` is not needed then. Without one, `mask` says what sees what; a `Visibility` lets a fused
        kernel do it where there is one.
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
        inactive = deterministic or self.dropout == 0.0
        drop = None if inactive else partial(nn.Dropout(self.dropout, name="dropout"), deterministic=False)
        if isinstance(mask, Visibility) and cache is None and bias is None:
            return self._out(attend_self(q, k, v, mask, drop), x.shape[-1]), None
        if cache is not None:
            real = jnp.ones(x.shape[:2], bool) if real is None else real
            slots, cache = cache.slots(real), cache.append(k, v, real)
            mask = within_window(slots[:, :, None], jnp.arange(cache.capacity)[None, None], self.window)
            k, v = cache.keys.astype(self.dtype), cache.values.astype(self.dtype)
        else:
            k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
            mask = mask.dense(x.shape[1]) if isinstance(mask, Visibility) else mask
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
