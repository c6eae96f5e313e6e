"""A codec's encoder over spectra: log-mel frames through causal ConvNeXt blocks, whole and step by step.

An order of magnitude cheaper than strided convolutions over the waveform, since all its layers run at the rate of the
latents.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.audio.mel import mel_filterbank
from slm_jax.audio.stft import window_of
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.convnext import CausalConvNeXt
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.framing import CausalFraming
from slm_jax.nn.steps import Elementwise, Steps
from slm_jax.nn.streaming_conv import CausalConv1d

FLOOR = 1e-5


class SpectralEncoderConfig(Config):
    """`mels` bands of windows of `n_fft` samples, one every `hop`, through `blocks` of `inner` channels to `width`."""

    width: int = 64
    inner: int = 256
    blocks: int = 4
    kernel: int = 7
    expansion: int = 3
    mels: int = 80
    n_fft: int = 1024
    hop: int = 320
    rate_hz: int = 16_000
    dtype: str = "float32"

    startup = 1

    def __post_init__(self) -> None:
        for name in ("width", "inner", "blocks", "kernel", "expansion", "mels", "hop"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.n_fft >= self.hop, "n_fft", self.n_fft, f"must reach over the {self.hop} samples of a hop")

    def make(self, name: str | None = None) -> "SpectralEncoder":
        """The module."""
        return SpectralEncoder(self, name=name)


class SpectralEncoder(Steps):
    """Samples `[B, N, 1]` to latents `[B, T, D]`, T = N / hop, the last one completed."""

    config: SpectralEncoderConfig

    def setup(self) -> None:
        c = self.config
        dtype = compute_dtype(c.dtype)
        mels = mel_filterbank(c.mels, c.n_fft, c.rate_hz, 0.0, c.rate_hz / 2)
        blocks = [CausalConvNeXt(c.inner, c.expansion * c.inner, c.kernel, dtype=dtype) for _ in range(c.blocks)]
        self.layers = [
            CausalFraming(c.n_fft, c.hop),
            Elementwise(partial(log_mels, jnp.asarray(window_of("hann", c.n_fft), jnp.float32), jnp.asarray(mels))),
            CausalConv1d(c.mels, c.inner, 3, dtype=dtype),
            *blocks,
            CausalConv1d(c.inner, c.width, 1, dtype=dtype),
        ]


def log_mels(
    window: Float[Array, "W"], filterbank: Float[Array, "F M"], frames: Float[Array, "B T W"]
) -> Float[Array, "B T M"]:
    """Log magnitudes of mel bands."""
    spectra = jnp.fft.rfft(frames * window)
    # the gradient of |z| does not exist at 0, where silence is
    return jnp.log(jnp.sqrt(jnp.square(spectra.real) + jnp.square(spectra.imag) + FLOOR**2) @ filterbank + FLOOR)
