"""DAC's and SNAC's encoder: a waveform to latents by strided convolutions between residual units."""

from slm_jax.nn.dac import DACShape, WindowAttention
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.snake import Snake
from slm_jax.nn.steps import Layers


class DACEncoderConfig(DACShape):
    """A `DACShape` that makes its encoder: `channels` after the first layer, doubled by every stride."""

    def make(self, name: str | None = None) -> "DACEncoder":
        """The module."""
        return DACEncoder(self, name=name)


class DACEncoder(Layers):
    """Samples `[B, N, 1]` to latents `[B, T, D]`, T = N / hop rounded down."""

    config: DACEncoderConfig

    def setup(self) -> None:
        c = self.config
        last = c.channels * 2 ** len(c.strides)
        blocks = [DACEncoderBlock(c, c.channels * 2**i, stride) for i, stride in enumerate(c.strides)]
        if c.depthwise:
            seen = [] if c.window is None else [WindowAttention(c.window, compute_dtype(c.dtype))]
            end = [*seen, c.conv(last, 7, padding=3, groups=last)]
        else:
            end = [Snake(), c.conv(c.width, 3, padding=1)]
        self.layers = [c.conv(c.channels, 7, padding=3), *blocks, *end]


class DACEncoderBlock(Layers):
    """Residual units, then a stride that doubles the channels."""

    shape: DACShape
    channels: int
    stride: int

    def setup(self) -> None:
        stride = {"stride": self.stride, "padding": -(-self.stride // 2)}
        down = self.shape.conv(2 * self.channels, 2 * self.stride, **stride)
        self.layers = [*self.shape.units(self.channels), Snake(), down]
