"""What encoder and decoder of a track share: strided convolutions with residual ones between them (Jukebox's VQ-VAE).

A track is a few numbers at an even rate, such as F0 and voicing. Source: Dhariwal et al. 2020, section 3 and its code
release, for sound; Polyak et al. 2021 for F0.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.dtypes import compute_dtype


class TrackShape(Config):
    """`channels` of the track, latents of `width`, one for every product of `strides`; `hidden` channels in between.

    Each stride has `depth` residual convolutions, whose dilations are powers of `growth` and begin anew every `cycle`
    of them (None: never). `inner`: channels within one, as a share of `hidden`. `scaled`: what a residual convolution
    adds is divided by the root of `depth`.
    """

    channels: int = 2
    width: int = 128
    strides: tuple[int, ...] = (2, 2, 2, 2)
    hidden: int = 32
    depth: int = 4
    growth: int = 3
    cycle: int | None = None
    inner: float = 1.0
    scaled: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("channels", "width", "hidden", "depth", "growth"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        even = bool(self.strides) and all(stride > 0 and stride % 2 == 0 for stride in self.strides)
        require(even, "strides", self.strides, "even numbers, at least one: an odd one would shift the track")
        require(self.cycle is None or self.cycle >= 1, "cycle", self.cycle, "None, or at least 1")
        require(int(self.inner * self.hidden) >= 1, "inner", self.inner, f"at least one of {self.hidden} channels")
        compute_dtype(self.dtype)

    @property
    def hop(self) -> int:
        """Values of the track per latent."""
        return math.prod(self.strides)

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of the residual convolutions, the first of a stride first."""
        return tuple(self.growth ** (place % (self.cycle or self.depth)) for place in range(self.depth))

    def conv(self, features: int, kernel: int, name: str, **more: Any) -> Conv1d:
        """A convolution in the dtype of this shape."""
        return Conv1d(features, kernel, dtype=compute_dtype(self.dtype), name=name, **more)


class ResidualConvs(nn.Module):
    """Dilated convolutions, each beside what came in. `backwards`: the widest dilation first."""

    shape: TrackShape
    backwards: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        c = self.shape
        inner, share = int(c.inner * c.hidden), c.depth**-0.5 if c.scaled else 1.0
        for place, dilation in enumerate(c.dilations[::-1] if self.backwards else c.dilations):
            wide = c.conv(inner, 3, f"wide_{place}", dilation=dilation, padding=dilation)
            y = wide(jnp.maximum(x, 0), mask)
            x = x + share * c.conv(c.hidden, 1, f"plain_{place}")(jnp.maximum(y, 0), mask)
        return x
