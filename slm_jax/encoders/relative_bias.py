"""WavLM's gated relative position bias (Chen et al. 2022, section 3.1)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.linear import Linear


class RelativeBiasConfig(Config):
    """`buckets` distances are told apart, half of them on each side; those beyond `max_distance` frames are one."""

    buckets: int = 320
    max_distance: int = 800

    def __post_init__(self) -> None:
        require(self.buckets >= 4 and self.buckets % 4 == 0, "buckets", self.buckets, "must be a multiple of 4")
        require(self.max_distance > self.buckets // 4, "max_distance", self.max_distance, "must exceed buckets / 4")


def buckets_of(offsets: Int[np.ndarray, "R"], config: RelativeBiasConfig) -> Int[np.ndarray, "R"]:
    """Bucket of each key-minus-query offset in frames: exact when near, logarithmic when far."""
    side = config.buckets // 2
    exact = side // 2
    distance = np.abs(offsets)
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = exact + (growth / np.float32(math.log(config.max_distance / exact)) * (side - exact)).astype(np.int32)
    return np.where(offsets > 0, side, 0) + np.where(distance < exact, distance, np.minimum(far, side - 1))


class RelativeBias(nn.Module):
    """A learnt bias per bucket and head, shared by all layers."""

    config: RelativeBiasConfig
    heads: int

    @nn.compact
    def __call__(self, frames: int) -> Float[Array, "H T T"]:
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "heads"))
        table = self.param("embedding", init, (self.config.buckets, self.heads), jnp.float32)
        by_offset = table[buckets_of(np.arange(1 - frames, frames), self.config)]
        steps = jnp.arange(frames)
        return by_offset[steps[None, :] - steps[:, None] + frames - 1].transpose(2, 0, 1)


class BiasGate(nn.Module):
    """How much of the bias a query takes, computed from the layer's input head by head, in float32."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], bias: Float[Array, "H T T"]) -> Float[Array, "B H T T"]:
        split = x.reshape(*x.shape[:2], self.heads, -1)
        scores = Linear(8, in_names=("head",), dtype=self.dtype, name="project")(split)
        scores = scores.astype(at_least_float32(scores.dtype))
        first, second = jnp.moveaxis(jax.nn.sigmoid(scores.reshape(*scores.shape[:-1], 2, 4).sum(-1)), -1, 0)
        init = nn.with_logical_partitioning(nn.initializers.ones, ("heads",))
        constant = self.param("constant", init, (self.heads,), jnp.float32)
        gate = first * (second * constant - 1.0) + 2.0
        return gate.transpose(0, 2, 1)[..., None] * bias
