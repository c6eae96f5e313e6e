"""HiFi-GAN's discriminators, needed in training only: by periods and by scales.

Source: Kong et al. 2020, section 2.3; the scale discriminator is MelGAN's. Each returns its scores and the features
of every layer, which the feature matching loss compares.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.dtypes import compute_dtype

SLOPE = 0.1
Judgement = tuple[Float[Array, "B _"], list[jax.Array]]
"""Scores, one per place, and the features of every layer."""


class DiscriminatorsConfig(Config):
    """One discriminator per period (samples) and per scale (each halves the rate of the one before).

    Layers of the period form: widths after every layer, stride 3 but for the last. Layers of the scale form:
    (width, kernel, stride, groups). `spectral_first`: the first scale is normalised by its kernels' largest singular
    values instead of weight norm, as in HiFi-GAN.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    scales: int = 3
    scale_layers: tuple[tuple[int, int, int, int], ...] = (
        (128, 15, 1, 1),
        (128, 41, 2, 4),
        (256, 41, 2, 16),
        (512, 41, 4, 16),
        (1024, 41, 4, 16),
        (1024, 41, 1, 16),
        (1024, 5, 1, 1),
    )
    spectral_first: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(len(self.periods) + self.scales > 0, "periods, scales", (self.periods, self.scales), "at least one")
        require(all(period > 1 for period in self.periods), "periods", self.periods, "2 samples or more")

    def make(self) -> "Discriminators":
        """The module."""
        return Discriminators(self)


def tiny_discriminators() -> DiscriminatorsConfig:
    """Small enough to train beside the fast generator on a CPU: four periods and two scales, no grouped layers."""
    scale = ((16, 15, 1, 1), (32, 21, 4, 1), (64, 21, 4, 1), (64, 5, 1, 1))
    return DiscriminatorsConfig(
        periods=(2, 3, 5, 7), period_widths=(16, 32, 64, 64), scales=2, scale_layers=scale, spectral_first=False
    )


class Discriminators(nn.Module):
    """All periods, then all scales."""

    config: DiscriminatorsConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B N"]) -> list[Judgement]:
        c, dtype = self.config, compute_dtype(self.config.dtype)
        judged = [
            PeriodDiscriminator(period, c.period_widths, dtype, name=f"period_{period}")(samples)
            for period in c.periods
        ]
        x = samples[..., None]
        for scale in range(c.scales):
            if scale > 0:
                x = halved(x)
            spectral = c.spectral_first and scale == 0
            judged.append(ScaleDiscriminator(c.scale_layers, spectral, dtype, name=f"scale_{scale}")(x))
        return judged


class PeriodDiscriminator(nn.Module):
    """Convolutions down the columns of the waveform written `period` samples to the row."""

    period: int
    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, samples: Float[Array, "B N"]) -> Judgement:
        batch, length = samples.shape
        padded = jnp.pad(samples, ((0, 0), (0, -length % self.period)), mode="reflect")
        columns = padded.reshape(batch, -1, self.period).transpose(0, 2, 1)  # every column is a sequence of its own
        x, features = columns.reshape(batch * self.period, -1, 1), []
        for layer, width in enumerate(self.widths):
            stride = 3 if layer < len(self.widths) - 1 else 1
            conv = Conv1d(width, 5, stride=stride, padding=2, weight_norm=0, dtype=self.dtype, name=f"conv_{layer}")
            x = nn.leaky_relu(conv(x), SLOPE)
            features.append(x.reshape(batch, self.period, *x.shape[1:]))
        x = Conv1d(1, 3, padding=1, weight_norm=0, dtype=self.dtype, name="conv_post")(x)
        features.append(x.reshape(batch, self.period, *x.shape[1:]))
        return x.reshape(batch, -1).astype(jnp.float32), features


class ScaleDiscriminator(nn.Module):
    """Strided grouped convolutions over the waveform."""

    layers: tuple[tuple[int, int, int, int], ...]
    spectral: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B N 1"]) -> Judgement:
        features = []
        for layer, (width, kernel, stride, groups) in enumerate(self.layers):
            settings = {"stride": stride, "groups": groups, "padding": kernel // 2}
            x = nn.leaky_relu(self._conv(f"conv_{layer}", width, kernel, **settings)(x), SLOPE)
            features.append(x)
        x = self._conv("conv_post", 1, 3, padding=1)(x)
        features.append(x)
        return x.reshape(x.shape[0], -1).astype(jnp.float32), features

    def _conv(self, name: str, width: int, kernel: int, **settings: Any) -> Conv1d:
        norm = "spectral" if self.spectral else 0
        return Conv1d(width, kernel, weight_norm=norm, dtype=self.dtype, name=name, **settings)


def halved(x: Float[Array, "B N 1"]) -> Float[Array, "B M 1"]:
    """The mean of four samples around every second one; the zeros beyond the ends count, as in the reference."""
    padded = jnp.pad(x[..., 0], ((0, 0), (2, 2)))
    count = x.shape[1] // 2 + 1
    return sum(padded[:, tap : tap + 2 * count - 1 : 2] for tap in range(4))[..., None] / 4.0
