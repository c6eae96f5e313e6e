"""The way back from latents to a track, such as F0 with voicing (Dhariwal et al. 2020; Polyak et al. 2021)."""

import flax.linen as nn
import jax.numpy as jnp

from slm_jax.core.types import Frames
from slm_jax.nn.conv import ConvTranspose1d, zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.track_convs import ResidualConvs, TrackShape


class TrackDecoderConfig(TrackShape):
    """`strides` in the order of the way back. `backwards`: residual convolutions have their widest dilation first."""

    backwards: bool = False

    def make(self, name: str | None = None) -> "TrackDecoder":
        """The module."""
        return TrackDecoder(self, name=name)


class TrackDecoder(nn.Module):
    """Latents `[B, T, width]` to tracks `[B, T hop, channels]`."""

    config: TrackDecoderConfig

    @nn.compact
    def __call__(self, latents: Frames) -> Frames:
        c, mask, dtype = self.config, latents.mask, compute_dtype(self.config.dtype)
        x = c.conv(c.hidden, 3, "into")(latents.values, mask)
        for stage, stride in enumerate(c.strides):
            x = ResidualConvs(c, c.backwards, name=f"residual_{stage}")(x, mask)
            width = c.width if stage == len(c.strides) - 1 else c.hidden
            up = ConvTranspose1d(width, 2 * stride, stride, stride // 2, dtype=dtype, name=f"up_{stage}")
            x, mask = up(x, mask), jnp.repeat(mask, stride, axis=1)
        return Frames(zero_padded(c.conv(c.channels, 3, "out")(x, mask), mask), mask)
