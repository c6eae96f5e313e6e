"""DAC's and SNAC's decoder: latents to a waveform by transposed convolutions before residual units."""

from slm_jax.nn.dac import DACShape, NoiseBlock, WindowAttention, tanh
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.snake import Snake
from slm_jax.nn.steps import Layers


class DACDecoderConfig(DACShape):
    """A `DACShape` that makes its decoder: `channels` after the first layer, halved by every stride.

    `noise`: every stage adds some, where the rng `noise` is given (SNAC).
    """

    noise: bool = False

    def make(self, name: str | None = None) -> "DACDecoder":
        """The module."""
        return DACDecoder(self, name=name)


class DACDecoder(Layers):
    """Latents `[B, T, D]` to samples `[B, N, 1]` in (-1, 1)."""

    config: DACDecoderConfig

    def setup(self) -> None:
        c, channels = self.config, self.config.channels
        if c.depthwise:
            begin = [c.conv(c.width, 7, padding=3, groups=c.width), c.conv(channels, 1)]
            begin += [] if c.window is None else [WindowAttention(c.window, compute_dtype(c.dtype))]
        else:
            begin = [c.conv(channels, 7, padding=3)]
        strides = enumerate(reversed(c.strides), 1)
        blocks = [DACDecoderBlock(c, channels // 2**i, stride) for i, stride in strides]
        self.layers = [*begin, *blocks, Snake(), c.conv(1, 7, padding=3), tanh]


class DACDecoderBlock(Layers):
    """A stride that halves the channels, then residual units."""

    shape: DACDecoderConfig
    channels: int
    stride: int

    def setup(self) -> None:
        noise = [NoiseBlock(self.shape, self.channels)] if self.shape.noise else []
        up = self.shape.up(self.channels, self.stride)
        self.layers = [Snake(), up, *noise, *self.shape.units(self.channels)]
