"""Judges of complex spectrograms, needed in training only: at several resolutions (EnCodec), in bands (DAC).

Source: Défossez et al. 2022, section 3.4 and appendix A.2; Kumar et al. 2023, section 3.4.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.audio.stft import frame, window_of
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.decoders.discriminators import DiscriminatorsConfig, Judgement
from slm_jax.nn.conv2d import Conv2d
from slm_jax.nn.dtypes import compute_dtype


class STFTDiscriminatorsConfig(Config):
    """One judge per `n_ffts` (samples; a hop is a quarter): 3 x 9 convolutions of `filters` channels.

    The middle layers halve the frequencies and see `dilations` frames apart; slopes of .2, as in EnCodec.
    """

    n_ffts: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    filters: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)
    slope: float = 0.2
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(bool(self.n_ffts), "n_ffts", self.n_ffts, "at least one")
        require(all(n % 4 == 0 for n in self.n_ffts), "n_ffts", self.n_ffts, "multiples of 4")

    def make(self, name: str | None = None) -> "STFTDiscriminators":
        """The module."""
        return STFTDiscriminators(self, name=name)


class BandDiscriminatorsConfig(Config):
    """One judge per `n_ffts`, in which every band of `bands` (shares of all frequencies) has layers of its own."""

    n_ffts: tuple[int, ...] = (2048, 1024, 512)
    bands: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    filters: int = 32
    slope: float = 0.1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(bool(self.n_ffts), "n_ffts", self.n_ffts, "at least one")
        inside = all(0 <= low < high <= 1 for low, high in self.bands)
        require(bool(self.bands) and inside, "bands", self.bands, "shares, low < high, in [0, 1]")

    def make(self, name: str | None = None) -> "BandDiscriminators":
        """The module."""
        return BandDiscriminators(self, name=name)


class JudgesConfig(Config):
    """Several kinds of discriminators, one after the other."""

    parts: tuple[DiscriminatorsConfig | STFTDiscriminatorsConfig | BandDiscriminatorsConfig, ...]

    def __post_init__(self) -> None:
        require(bool(self.parts), "parts", self.parts, "at least one")

    def make(self) -> "Judges":
        """The module."""
        return Judges(self)


class Judges(nn.Module):
    """The judgements of all parts."""

    config: JudgesConfig

    def setup(self) -> None:
        self.parts = [part.make() for part in self.config.parts]

    def __call__(self, samples: Float[Array, "B N"]) -> list[Judgement]:
        return [judgement for part in self.parts for judgement in part(samples)]


class STFTDiscriminators(nn.Module):
    """All resolutions."""

    config: STFTDiscriminatorsConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B N"]) -> list[Judgement]:
        c = self.config
        return [
            STFTDiscriminator(c, name=f"scale_{i}")(complex_spectrogram(samples, n, centred=False, normalised=True))
            for i, n in enumerate(c.n_ffts)
        ]


class STFTDiscriminator(nn.Module):
    """Convolutions over a complex spectrogram."""

    config: STFTDiscriminatorsConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T F 2"]) -> Judgement:
        c, features = self.config, []
        settings: dict[str, Any] = {"dtype": compute_dtype(c.dtype)}
        layers = [Conv2d(c.filters, (3, 9), padding=(1, 4), **settings)]
        for dilation in c.dilations:
            spread = {"stride": (1, 2), "dilation": (dilation, 1), "padding": (dilation, 4)}
            layers.append(Conv2d(c.filters, (3, 9), **spread, **settings))
        for layer in [*layers, Conv2d(c.filters, (3, 3), padding=(1, 1), **settings)]:
            x = nn.leaky_relu(layer(x), c.slope)
            features.append(x)
        return _scores(Conv2d(1, (3, 3), padding=(1, 1), name="conv_post", **settings)(x)), features


class BandDiscriminators(nn.Module):
    """All resolutions."""

    config: BandDiscriminatorsConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B N"]) -> list[Judgement]:
        c = self.config
        return [
            BandDiscriminator(c, name=f"scale_{i}")(complex_spectrogram(samples, n, centred=True))
            for i, n in enumerate(c.n_ffts)
        ]


class BandDiscriminator(nn.Module):
    """Convolutions over each band of a complex spectrogram, then over all of them side by side."""

    config: BandDiscriminatorsConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T F 2"]) -> Judgement:
        c, bands, features = self.config, [], []
        settings: dict[str, Any] = {"dtype": compute_dtype(c.dtype)}
        for index, (low, high) in enumerate(c.bands):
            y = x[:, :, int(low * x.shape[2]) : int(high * x.shape[2])]
            for layer, (kernel, stride) in enumerate([((3, 9), (1, 1)), *[((3, 9), (1, 2))] * 3, ((3, 3), (1, 1))]):
                padding = (1, kernel[1] // 2)
                conv = Conv2d(c.filters, kernel, stride, padding=padding, name=f"band_{index}_{layer}", **settings)
                y = nn.leaky_relu(conv(y), c.slope)
                features.append(y)
            bands.append(y)
        y = Conv2d(1, (3, 3), padding=(1, 1), name="conv_post", **settings)(jnp.concatenate(bands, 2))
        return _scores(y), [*features, y]


def _scores(x: Float[Array, "B T F 1"]) -> Float[Array, "B N"]:
    return x.reshape(x.shape[0], -1).astype(jnp.float32)


def complex_spectrogram(
    samples: Float[Array, "B N"], n_fft: int, centred: bool, normalised: bool = False
) -> Float[Array, "B T F 2"]:
    """Real and imaginary part of frames of `n_fft` samples a quarter of that apart.

    `centred`: the first one around the first sample, ends mirrored; else it begins there. `normalised`: divided by the
    root of the window's energy.
    """
    window = jnp.asarray(window_of("hann", n_fft), jnp.float32)
    scale = 1.0 / np.sqrt(float(np.square(window_of("hann", n_fft)).sum())) if normalised else 1.0
    rule = f"more than {n_fft // 2 if centred else n_fft - 1} samples for windows of {n_fft}"
    require(samples.shape[1] > (n_fft // 2 if centred else n_fft - 1), "samples", samples.shape[1], rule)
    samples = jnp.pad(samples, ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect") if centred else samples
    spectra = jnp.fft.rfft(frame(samples, n_fft, n_fft // 4) * window) * scale
    return jnp.stack([spectra.real, spectra.imag], -1)
