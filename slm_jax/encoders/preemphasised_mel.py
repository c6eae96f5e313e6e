"""Log-mel frames behind a pre-emphasis, as NeMo's encoders of speech read them; causal ones step by step too.

Reference: `ParakeetFeatureExtractor` of transformers, NeMo's `AudioToMelSpectrogramPreprocessor` without dither.
"""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slm_jax.audio.mel import mel_filterbank
from slm_jax.audio.rates import mask_of
from slm_jax.audio.stft import frame, window_of
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.framing import CausalFraming

RATE_HZ, HOP, WINDOW, N_FFT = 16_000, 160, 400, 512
GUARD = 2.0**-24
"""What is added to an energy before its logarithm."""
NORMALISATIONS = ("utterance", "none")
State = tuple[Float[Array, "B 1"], Float[Array, "B K"]]
"""The last sample, and the emphasised ones that the next frame reads again."""


class PreemphasisedMelConfig(Config):
    """`mels` bands of frames of 25 ms every 10 ms.

    `normalise` "utterance": each band gets mean 0 and variance 1 over the frames of its clip; "none" knows no clip.
    `causal`: frame t ends with sample (t + 1) 160, and a clip that ends within a hop is completed with silence; else it
    stands around sample t 160, and there are as many frames as whole hops. The second is the published form; NeMo's
    streaming models read it too, 12.5 ms late.
    """

    mels: int = 80
    emphasis: float = 0.97
    normalise: str = "utterance"
    causal: bool = False

    def __post_init__(self) -> None:
        require(self.mels >= 1, "mels", self.mels, "must be at least 1")
        require(0 <= self.emphasis < 1, "emphasis", self.emphasis, "must be in [0, 1)")
        known = ", ".join(NORMALISATIONS)
        require(self.normalise in NORMALISATIONS, "normalise", self.normalise, f"must be one of {known}")
        streams = not self.causal or self.normalise == "none"
        require(streams, "normalise", self.normalise, "a causal frame knows nothing of the rest of its clip")

    def make(self) -> "PreemphasisedMel":
        """The transform."""
        return PreemphasisedMel(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        return -(-n // HOP) if self.causal else n // HOP


class PreemphasisedMel:
    """Samples `[B, N]` to frames `[B, T, M]`."""

    stride, latency, receptive_field = HOP, 0, WINDOW + 1

    def __init__(self, config: PreemphasisedMelConfig) -> None:
        self.config, self.framing = config, CausalFraming(WINDOW, HOP)

    def __call__(self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Frames:
        """Frames of right-padded rows; those that are not real are zero."""
        c, samples = self.config, jnp.where(mask, samples, 0.0)
        emphasised = jnp.where(mask, samples - c.emphasis * jnp.pad(samples, ((0, 0), (1, 0)))[:, :-1], 0.0)
        if c.causal:
            cut = self.framing(Frames(emphasised[..., None], mask))
            return self._levels(cut.values, cut.mask)
        count = c.frame_count(samples.shape[1])
        cut = frame(jnp.pad(emphasised, ((0, 0), (WINDOW // 2, WINDOW // 2))), WINDOW, HOP)[:, :count]
        return self._levels(cut, mask_of(c.frame_count(mask.sum(-1)), count))

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> State:
        """Silence before the first sample."""
        require(self.config.causal, "causal", self.config.causal, "frames around a sample await later ones")
        return jnp.zeros((batch, 1), dtype or jnp.float32), self.framing.initial_state(batch, dtype=dtype)

    def step(self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"], state: State) -> tuple[Frames, State]:
        """The next samples, whole hops of them; a row gives all, none, or ends there."""
        last, framed = state
        joined = jnp.concatenate([last, jnp.where(mask, samples, 0.0)], axis=1)
        emphasised = jnp.where(mask, joined[:, 1:] - self.config.emphasis * joined[:, :-1], 0.0)
        cut, framed = self.framing.step(Frames(emphasised[..., None], mask), framed)
        last = jnp.take_along_axis(joined, mask.sum(-1, keepdims=True), axis=1)
        return self._levels(cut.values, cut.mask), (last, framed)

    def reset(self, state: State, rows: Bool[Array, "B"]) -> State:
        """The state with `rows` at the beginning."""
        return jnp.where(rows[:, None], 0, state[0]), self.framing.reset(state[1], rows)

    def _levels(self, cut: Float[Array, "B T W"], mask: Bool[Array, "B T"]) -> Frames:
        """Logarithms of the energies of frames, normalised where the config says so."""
        spectra = jnp.fft.rfft(cut * jnp.asarray(window_of("hann_symmetric", WINDOW), jnp.float32), N_FFT)
        energies = (jnp.square(spectra.real) + jnp.square(spectra.imag)) @ _filters(self.config.mels)
        levels = jnp.log(energies + GUARD)
        if self.config.normalise == "utterance":
            levels = normalised(levels, mask)
        return Frames(jnp.where(mask[..., None], levels, 0.0), mask)


def normalised(levels: Float[Array, "B T M"], mask: Bool[Array, "B T"]) -> Float[Array, "B T M"]:
    """Each band with mean 0 and (unbiased) variance 1 over the real frames of its row."""
    real, count = mask[..., None], mask.sum(-1)[:, None, None]
    mean = jnp.where(real, levels, 0.0).sum(1, keepdims=True) / jnp.maximum(count, 1)
    spread = jnp.square(jnp.where(real, levels - mean, 0.0)).sum(1, keepdims=True) / jnp.maximum(count - 1, 1)
    return (levels - mean) / (jnp.sqrt(spread) + 1e-5)


@lru_cache(maxsize=4)
def _filters(mels: int) -> np.ndarray:
    return mel_filterbank(mels, N_FFT, RATE_HZ, 0.0, RATE_HZ / 2, "slaney", np.float32)
