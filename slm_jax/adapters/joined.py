"""The frames of two encoders side by side, channel by channel (SALMONN, arXiv 2310.13289; WavLLM, arXiv 2404.00656).

In front of another adapter: `ChainConfig(parts=(JoinedConfig(...), WindowQFormerConfig(...)))`, whose context is the
second stream.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.norm import LayerNorm


class JoinedConfig(Config):
    """Two streams of `widths` channels as one; with `norms` each has a LayerNorm of its own first.

    `lasts`: "longer" goes on with zeros for the stream that has ended, behind its norm (SALMONN); "shorter" ends with
    the first to end (WavLLM).
    """

    widths: tuple[int, int]
    norms: bool = True
    lasts: str = "longer"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        good = len(self.widths) == 2 and min(self.widths) >= 1
        require(good, "widths", self.widths, "must be the channels of the two streams")
        require(self.lasts in ("longer", "shorter"), "lasts", self.lasts, "must be longer or shorter")
        compute_dtype(self.dtype)

    @property
    def width(self) -> int:
        """Channels that come out."""
        return sum(self.widths)

    def frames_out(self, frames: int) -> int:
        """As many frames as the stream has that lasts longer, or shorter, as `lasts` says."""
        return frames

    def frames_of(self, first: int, second: int) -> int:
        """How many come of streams of so many frames each."""
        return max(first, second) if self.lasts == "longer" else min(first, second)

    def make(self) -> "Joined":
        """The module."""
        return Joined(self)


class Joined(nn.Module):
    """Frames [B, T, D] and, as context, Frames [B, S, E] to [B, max(T, S) or min(T, S), D + E].

    Real is where either is real, or with "shorter" both are. Sub-modules `first_norm`, `second_norm`.
    """

    config: JoinedConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """Raises `UserError` where the context is not a second stream, or a stream has other channels."""
        require(isinstance(context, Frames), "context", type(context).__name__, "must be the Frames of a second stream")
        widths = (frames.values.shape[-1], context.values.shape[-1])
        require(
            widths == tuple(self.config.widths), "widths", self.config.widths, f"the streams have {widths} channels"
        )
        longer = self.config.lasts == "longer"
        length = (max if longer else min)(frames.mask.shape[1], context.mask.shape[1])
        first, second = self._of(frames, "first", length), self._of(context, "second", length)
        mask = first.mask | second.mask if longer else first.mask & second.mask
        return Frames(jnp.concatenate([first.values, second.values], axis=-1), mask)

    def _of(self, stream: Frames, name: str, length: int) -> Frames:
        """One stream normalised, then with zeros where it is not real, at `length` frames."""
        dtype = compute_dtype(self.config.dtype)
        x = zero_padded(stream.values, stream.mask)
        x = LayerNorm(dtype=dtype, name=f"{name}_norm")(x) if self.config.norms else x.astype(dtype)
        missing = max(length - x.shape[1], 0)
        x = jnp.pad(zero_padded(x, stream.mask), ((0, 0), (0, missing), (0, 0)))
        return Frames(x[:, :length], jnp.pad(stream.mask, ((0, 0), (0, missing)))[:, :length])
