"""Self-attention that knows distances by projected sinusoids (Dai et al. 2019, Transformer-XL; Gulati et al. 2020)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.nn.attend import attend_by_head
from slm_jax.nn.linear import Linear

Kept = tuple[Float[Array, "B K H C"], Float[Array, "B K H C"]]
"""Keys and values of frames before those at hand."""
Own = tuple[Float[Array, "B T H C"], Float[Array, "B T H C"]]
"""Keys and values of the frames at hand."""


class RelativeAttention(nn.Module):
    """Scores `(q + u) k + (q + w) r`, both over sqrt(C), where r is the projected sinusoid of the distance.

    Sub-modules `query`, `key`, `value`, `out`, `distance` (without bias); parameters `content_bias` u and
    `distance_bias` w. Reference: `ParakeetEncoderAttention`, NeMo's `RelPositionMultiHeadAttention`.
    """

    heads: int
    head_width: int
    use_bias: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        places: Float[Array, "R D"],
        sees: Bool[Array, "#B T S"] | None,
        kept: Kept | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T D"], Own]:
        """What frames make of those that they see, and their own keys and values.

        `places`: `distances` of T queries and S keys. `kept`: of K frames in front of them; S = K + T. What a frame
        gets that sees none means nothing.
        """
        q, k, v = (self._project(name, x) for name in ("query", "key", "value"))
        keys, values = (k, v) if kept is None else (jnp.concatenate(pair, 1) for pair in zip(kept, (k, v), strict=True))
        u, w = (self._bias(name) for name in ("content_bias", "distance_bias"))
        r = self._linear("distance", use_bias=False)(places.astype(self.dtype))
        by_distance = to_keys(jnp.einsum("bthc,rhc->bhtr", q + w, r), keys.shape[1]) * self.head_width**-0.5
        drop = None if deterministic or self.dropout == 0.0 else nn.Dropout(self.dropout, deterministic=False)
        keys, values = jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2)
        y = attend_by_head(q + u, keys, values, by_distance, sees, dropout=drop)
        out = Linear(x.shape[-1], ("heads", "head"), ("embed",), use_bias=self.use_bias, dtype=self.dtype, name="out")
        return out(y), (k, v)

    def _project(self, name: str, x: jax.Array) -> jax.Array:
        return self._linear(name, self.use_bias)(x)

    def _linear(self, name: str, use_bias: bool) -> Linear:
        sizes = (self.heads, self.head_width)
        return Linear(sizes, ("embed",), ("heads", "head"), use_bias=use_bias, dtype=self.dtype, name=name)

    def _bias(self, name: str) -> jax.Array:
        init = nn.with_logical_partitioning(nn.initializers.zeros, ("heads", "head"))
        return self.param(name, init, (self.heads, self.head_width), jnp.float32).astype(self.dtype)


def distances(queries: int, keys: int, width: int) -> Float[Array, "R D"]:
    """Sinusoids of how far a key stands before a query, from the farthest (keys - 1) to the one that is farthest behind
    (1 - queries): sine and cosine of each frequency side by side."""
    rates = jnp.exp(jnp.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = jnp.arange(keys - 1, -queries, -1)[:, None] * rates
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(len(angles), -1)[:, :width]


def to_keys(scores: Float[Array, "B H T R"], keys: int) -> Float[Array, "B H T S"]:
    """From a number for each of `distances` to one for each key, by shifting rows; queries are the last of the keys."""
    queries, reach = scores.shape[2:]
    flat = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(*scores.shape[:2], -1)
    flat = jax.lax.slice_in_dim(flat, queries - 1, queries - 1 + queries * reach, axis=-1)
    return flat.reshape(*scores.shape)[..., :keys]
