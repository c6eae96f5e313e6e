"""From log-mel spectrograms to a waveform: HiFi-GAN as it was published (Kong et al. 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.mel import LogMelConfig, hifigan_log_mel
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.decoders.hifigan import HiFiGANConfig, hifigan_v1


class MelVocoderConfig(Config):
    """A generator that reads `mels` numbers per frame; the defaults are HiFi-GAN V1.

    `features` is the spectrogram it was trained on, None where that is not known. `normalise`: the model brings
    features to zero mean and unit variance by constants of its own, as transformers' `SpeechT5HifiGan` does.
    """

    mels: int = 80
    rate_hz: int = 22_050
    features: LogMelConfig | None = hifigan_log_mel()
    normalise: bool = False
    generator: HiFiGANConfig = hifigan_v1()

    def __post_init__(self) -> None:
        require(self.mels > 0, "mels", self.mels, "must be positive")
        require(self.rate_hz > 0, "rate_hz", self.rate_hz, "must be positive")
        if self.features is not None:
            own = {"mels": self.mels, "rate_hz": self.rate_hz, "hop": self.generator.hop}
            for name, value in own.items():
                given = getattr(self.features, name)
                require(given == value, f"features.{name}", given, f"the vocoder's own is {value}")

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.generator.hop

    def make(self) -> "MelVocoder":
        """The module."""
        return MelVocoder(self)


class MelVocoder(nn.Module):
    """Frames `[B, T, M]` to samples `[B, T hop]`."""

    config: MelVocoderConfig

    @nn.compact
    def __call__(self, features: Float[Array, "B T M"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B N"]:
        """N = T hop samples in [-1, 1], zero beyond the real frames. Raises `UserError` for another width than M."""
        c = self.config
        require(features.shape[-1] == c.mels, "features", features.shape, f"needs {c.mels} mels per frame")
        if c.normalise:
            features = (features - self._constant("mean", nn.initializers.zeros)) / self._constant(
                "scale", nn.initializers.ones
            )
        return c.generator.make(name="generator")(features, mask)

    def _constant(self, name: str, init: nn.initializers.Initializer) -> Float[Array, "M"]:
        """One number per mel that training leaves alone."""
        values = self.param(name, nn.with_logical_partitioning(init, (None,)), (self.config.mels,), jnp.float32)
        return jax.lax.stop_gradient(values)
