"""A learnt bias on attention scores by distance in buckets (Raffel et al. 2020, section 2.1): T5, WavLM, BEATs."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class RelativeBiasConfig(Config):
    """`buckets` distances are told apart; those beyond `max_distance` entries are one.

    `bidirectional`: half of the buckets for each side. Otherwise all are for keys before the query, and later keys
    share the bucket of distance 0 (T5's decoder).
    """

    buckets: int = 320
    max_distance: int = 800
    bidirectional: bool = True

    def __post_init__(self) -> None:
        fold = 4 if self.bidirectional else 2
        exact = self.buckets // fold
        require(exact >= 1 and self.buckets % fold == 0, "buckets", self.buckets, f"must be a multiple of {fold}")
        require(self.max_distance > exact, "max_distance", self.max_distance, f"must exceed buckets / {fold}")

    @property
    def side(self) -> int:
        """Buckets of one side; the nearer half of them hold one distance each."""
        return self.buckets // 2 if self.bidirectional else self.buckets


def buckets_of(offsets: Int[np.ndarray, "R"], config: RelativeBiasConfig) -> Int[np.ndarray, "R"]:
    """Bucket of each key-minus-query offset: exact when near, logarithmic when far."""
    side = config.side
    exact = side // 2
    distance = np.abs(offsets) if config.bidirectional else np.maximum(-offsets, 0)
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = exact + (growth / np.float32(math.log(config.max_distance / exact)) * (side - exact)).astype(np.int32)
    bucket = np.where(distance < exact, distance, np.minimum(far, side - 1))
    return bucket + np.where(offsets > 0, side, 0) if config.bidirectional else bucket


class RelativeBias(nn.Module):
    """A learnt bias per bucket and head, shared by all layers that are given it."""

    config: RelativeBiasConfig
    heads: int

    def setup(self) -> None:
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "heads"))
        self.embedding = self.param("embedding", init, (self.config.buckets, self.heads), jnp.float32)

    def __call__(self, frames: int) -> Float[Array, "H T T"]:
        """Of a sequence of so many entries with itself."""
        steps = jnp.arange(frames)
        return self.bias_for(steps, steps)

    def bias_for(
        self, query_positions: Int[Array, "*B T"], key_positions: Int[Array, "*B S"]
    ) -> Float[Array, "*B H T S"]:
        """Of queries and keys at any positions, such as the one query of a decoding step against a cache."""
        reach = self.config.max_distance  # what lies farther away shares its bucket
        by_offset = jnp.take(self.embedding, buckets_of(np.arange(-reach, reach + 1), self.config), axis=0)
        offsets = key_positions[..., None, :] - query_positions[..., :, None]
        return jnp.moveaxis(by_offset[jnp.clip(offsets, -reach, reach) + reach], -1, -3)
