"""An encoder of tracks, such as F0 with voicing, in strided convolutions (Dhariwal et al. 2020; Polyak et al. 2021)."""

import flax.linen as nn

from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.track_convs import ResidualConvs, TrackShape


class TrackEncoderConfig(TrackShape):
    """The defaults are the shape of the F0 encoder of Polyak et al. 2021, which also hears voicing: SpiRit-LM's."""

    def make(self, name: str | None = None) -> "TrackEncoder":
        """The module."""
        return TrackEncoder(self, name=name)


class TrackEncoder(nn.Module):
    """Tracks `[B, P, channels]` to latents `[B, P // hop, width]`; what is left of a latent at the end is unheard."""

    config: TrackEncoderConfig

    @nn.compact
    def __call__(self, tracks: Frames) -> Frames:
        c, x, mask = self.config, tracks.values, tracks.mask
        for stage, stride in enumerate(c.strides):
            down = c.conv(c.hidden, 2 * stride, f"down_{stage}", stride=stride, padding=stride // 2)
            x, mask = down(x, mask), down.mask_out(mask)
            x = ResidualConvs(c, name=f"residual_{stage}")(x, mask)
        latents = c.conv(c.width, 3, "out")(x, mask)
        return Frames(zero_padded(latents, mask), mask)
