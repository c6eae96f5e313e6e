"""Multi-head attention, over a sequence or over a context, with or without a cache (`nn.caches`)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.errors import require
from slm_jax.nn.attend import attend_by_head
from slm_jax.nn.caches import Cache, ContextCache
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import RMSNorm
from slm_jax.nn.pacing import PacedCache
from slm_jax.nn.positions import Rotation, rotate
from slm_jax.nn.self_attention import attend_self
from slm_jax.nn.visibility import Visibility


class Attention(nn.Module):
    """Multi-head attention with grouped key-value heads, over `x` itself or over a `context`.

    Sub-modules `query`, `key`, `value`, `out` are separate, which LoRA and published checkpoints want. `key_bias`: has
    the key a bias where query and value have one (Whisper: no)? `qk_norm`: an RMS norm of that epsilon over each head's
    channels (Qwen3). `scale` of the scores: `1 / sqrt(head_width)` unless given (T5: 1).
    """

    heads: int
    head_width: int
    kv_heads: int | None = None
    qkv_bias: bool = True
    key_bias: bool = True
    out_bias: bool = True
    qk_norm: float | None = None
    scale: float | None = None
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
        mask: Visibility | Bool[Array, "#B #T #S"] | Bool[Array, "B S"] | None = None,
        bias: Float[Array, "#B #H #T #S"] | Callable[[jax.Array], jax.Array] | None = None,
        by: Rotation | None = None,
        cache: Cache | None = None,
        real: Bool[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """The output and the new cache (None without one).

        Over itself: `mask` says what sees what; a `Visibility` lets a fused kernel do it where there is one. With a
        growing or ring `cache` the entries of `x` where `real` holds are appended, and the cache says what they see.
        Over a `context`: `mask` `[B, S]` says which of it is real, `[B, T, S]` what sees what. With a `ContextCache`
        its keys and values are also kept: later calls have the cache and no context, and may have several rows for
        each row of it (beams). `bias` may be a function of the projected queries `[B, T, H, C]`. Raises `UserError`
        for what has no meaning together.
        """
        _check_arguments(context, mask, by, cache, real)
        q = self._project("query", x, self.heads, "heads")
        bias = bias(q) if callable(bias) else bias
        if self.qk_norm is not None:
            q = self._norm("query_norm")(q)
        if self.scale is not None:
            q = q * (self.scale * self.head_width**0.5)
        k: Any = None
        v: Any = None
        seen: Any = mask
        if context is not None or not isinstance(cache, ContextCache):
            source = x if context is None else context
            k = self._project("key", source, self.kv_heads or self.heads, "kv_heads")
            v = self._project("value", source, self.kv_heads or self.heads, "kv_heads")
            k = k if self.qk_norm is None else self._norm("key_norm")(k)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        inactive = deterministic or self.dropout == 0.0
        drop = None if inactive else partial(nn.Dropout(self.dropout, name="dropout"), deterministic=False)
        if isinstance(mask, Visibility) and bias is None:
            return self._out(attend_self(q, k, v, mask, drop), x.shape[-1]), None
        if cache is not None:
            if context is not None:
                assert isinstance(cache, ContextCache)  # for the type checker
                cache = cache.filled(k, v, seen)
            real = jnp.ones(x.shape[:2], bool) if real is None else real
            cache, k, v, seen = cache.append(k, v, real)
            k, v = k.astype(self.dtype), v.astype(self.dtype)
        else:
            k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
            seen = mask.dense(x.shape[1]) if isinstance(mask, Visibility) else _by_query(mask)
        rows_of_one = q.reshape(k.shape[0], -1, *q.shape[2:])  # those of one context beside each other
        y = attend_by_head(rows_of_one, k, v, bias, seen, dropout=drop).reshape(q.shape)
        return self._out(y, x.shape[-1]), cache

    def _norm(self, name: str) -> RMSNorm:
        return RMSNorm(self.qk_norm, dtype=self.dtype, param_dtype=self.param_dtype, name=name)

    def _project(self, name: str, x: jax.Array, heads: int, axis: str) -> jax.Array:
        return Linear(
            (heads, self.head_width),
            in_names=("embed",),
            out_names=(axis, "head"),
            use_bias=self.qkv_bias and (name != "key" or self.key_bias),
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


def _by_query(mask: jax.Array | None) -> jax.Array | None:
    """A mask `[B, S]` of a context as one for every query."""
    return mask[:, None, :] if mask is not None and mask.ndim == 2 else mask


def _check_arguments(context: Any, mask: Any, by: Any, cache: Any, real: Any) -> None:
    """Refuses, by name, what has no meaning together."""
    kind, fixed = type(cache).__name__, isinstance(cache, ContextCache)
    form = "a Visibility" if isinstance(mask, Visibility) else f"of {getattr(mask, 'ndim', 0)} axes"
    crossed = context is not None or fixed
    if context is not None:
        require(cache is None or fixed, "cache", kind, "keeps a sequence; a context is kept in a ContextCache")
        require(not isinstance(mask, Visibility), "mask", form, "says who sees whom within one sequence, not a context")
        by_entry = cache is None or mask is None or mask.ndim == 2
        require(by_entry, "mask", form, "a ContextCache keeps which entries of the context are real: give it [B, S]")
    else:
        require(mask is None or cache is None, "mask", form, f"the {kind} says who is seen")
        two = mask is not None and form == "of 2 axes"
        require(not two, "mask", form, "says which entries of a context are real, and there is none: give [B, T, S]")
    require(by is None or not crossed, "by", "a rotation", "turns positions of one sequence; a context has others")
    counts = cache is not None and (not fixed or isinstance(cache, PacedCache))
    require(real is None or counts, "real", "a mask", "says which entries a cache takes or counts; there is none")
