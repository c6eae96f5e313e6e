"""SEANet's decoder: latents to a waveform by transposed convolutions, causal, whole and step by step."""

from typing import Any

from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.lstm import LSTM
from slm_jax.nn.seanet import SEANetShape, elu
from slm_jax.nn.steps import Steps


class SEANetDecoderConfig(SEANetShape):
    """A `SEANetShape` that makes its decoder; layers are numbered as in the published models."""

    def make(self, name: str | None = None) -> "SEANetDecoder":
        """The module."""
        return SEANetDecoder(self, name=name)


class SEANetDecoder(Steps):
    """Latents `[B, T, D]` to samples `[B, T hop, 1]`."""

    config: SEANetDecoderConfig

    def setup(self) -> None:
        c = self.config
        channels = c.filters * 2 ** len(c.strides)
        layers: list[Any] = [c.conv(c.width, channels, c.kernel)]
        if c.lstm:
            layers.append(LSTM(channels, c.lstm, residual=True, dtype=compute_dtype(c.dtype)))
        for stride in reversed(c.strides):
            layers += [elu, c.up(channels, channels // 2, stride), *c.units(channels // 2)]
            channels //= 2
        self.layers = [*layers, elu, c.conv(channels, 1, c.last_kernel)]
