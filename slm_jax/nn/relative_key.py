"""Keys that know how far away they stand (Shaw et al. 2018): a learnt vector by clipped distance beside every key."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class RelativeKeyConfig(Config):
    """Keys up to `left` entries before the query and `right` behind it are told apart; those farther away are one."""

    left: int = 64
    right: int = 8

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must be at least 0")

    @property
    def distances(self) -> int:
        """Vectors of the table."""
        return self.left + self.right + 1


class RelativeKey(nn.Module):
    """What the vectors by distance add to the scores of a sequence with itself, scaled by 1 / sqrt(C) as scores are."""

    config: RelativeKeyConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, q: Float[Array, "B T H C"]) -> Float[Array, "B H T T"]:
        width = q.shape[-1]
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "head"))
        table = self.param("embedding", init, (self.config.distances, width), jnp.float32)
        scores = jnp.einsum("bthc,rc->bhtr", q, table.astype(self.dtype)) * width**-0.5
        return by_key(scores, self.config)


def by_key(scores: Float[Array, "B H T R"], config: RelativeKeyConfig) -> Float[Array, "B H T T"]:
    """From a number for each distance to one for each key, by shifting rows instead of looking them up."""
    length = scores.shape[2]
    offsets = jnp.arange(1 - length, length)
    spread = jnp.take(scores, jnp.clip(offsets, -config.left, config.right) + config.left, axis=-1)
    # row t of `spread` holds key s at t - s places left of the end; with one column more, cut anew, it holds it at s
    flat = jnp.pad(spread, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(*scores.shape[:2], -1)
    flat = jax.lax.slice_in_dim(flat, length - 1, length - 1 + length * (2 * length - 1), axis=-1)
    return flat.reshape(*scores.shape[:2], length, 2 * length - 1)[..., :length]
