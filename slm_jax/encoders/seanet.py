"""SEANet's encoder: a waveform to latents by strided convolutions, causal, whole and step by step."""

from typing import Any

from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.lstm import LSTM
from slm_jax.nn.seanet import SEANetShape, elu
from slm_jax.nn.steps import Steps


class SEANetEncoderConfig(SEANetShape):
    """A `SEANetShape` that makes its encoder; layers are numbered as in the published models."""

    def make(self, name: str | None = None) -> "SEANetEncoder":
        """The module."""
        return SEANetEncoder(self, name=name)


class SEANetEncoder(Steps):
    """Samples `[B, N, 1]` to latents `[B, T, D]`, T = N / hop, the last one completed."""

    config: SEANetEncoderConfig

    def setup(self) -> None:
        c = self.config
        layers: list[Any] = [c.conv(1, c.filters, c.kernel)]
        channels = c.filters
        for stride in c.strides:
            layers += [*c.units(channels), elu, c.conv(channels, 2 * channels, 2 * stride, stride)]
            channels *= 2
        if c.lstm:
            layers.append(LSTM(channels, c.lstm, residual=True, dtype=compute_dtype(c.dtype)))
        self.layers = [*layers, elu, c.conv(channels, c.width, c.last_kernel)]
