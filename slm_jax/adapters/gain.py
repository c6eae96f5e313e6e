"""A learnt factor for each channel, so that what an adapter makes begins as loud as a language model's words.

A language model adds what its layers find to what it reads: vectors far louder than its own words drown it, and a
frozen one hears little of them until training has made them quieter. `ChainConfig(parts=(LAYERS, GainConfig(width=192,
start=0.07)))`, where .07 is the standard deviation of the model's table.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype


class GainConfig(Config):
    """`start`: the factor of all channels at first."""

    width: int
    start: float = 1.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "must be at least 1")
        require(self.start > 0, "start", self.start, "must be above 0")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """As many frames as go in."""
        return frames

    def make(self) -> "Gain":
        """The module."""
        return Gain(self)


class Gain(nn.Module):
    """Frames [B, T, D], each channel times its factor; parameter `gain`."""

    config: GainConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at. Raises `UserError` for frames of another width."""
        c, found = self.config, frames.values.shape[-1]
        require(found == c.width, "width", c.width, f"the frames have {found} channels")
        init = nn.with_logical_partitioning(nn.initializers.constant(c.start), ("norm",))
        gain = self.param("gain", init, (c.width,), jnp.float32)
        return Frames(frames.values * gain.astype(compute_dtype(c.dtype)), frames.mask)
