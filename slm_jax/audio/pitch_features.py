"""F0 as networks read it: relative to the utterance's own mean, with voicing beside it, and back to Hz."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class PitchFeaturesConfig(Config):
    """F0 less the mean of its voiced values, over `spread`, and voicing (0 or 1).

    `scale`: of the logarithm ("log", in nats), or of Hz, as SpiRit-LM's. `interpolated`: unvoiced values lie on the
    straight line between their voiced neighbours (level before the first and after the last); else they are 0. An
    utterance without a voiced value is 0 throughout.
    """

    scale: Literal["log", "hz"] = "log"
    spread: float = 0.25
    interpolated: bool = False

    def __post_init__(self) -> None:
        require(self.spread > 0, "spread", self.spread, "must be positive")

    def mean(self, f0_hz: Float[np.ndarray, "P"]) -> float:
        """What is taken off: the mean over voiced values, 0 where there are none."""
        voiced = f0_hz[f0_hz > 0].astype(np.float64)
        return float(self._scaled(voiced).mean()) if len(voiced) else 0.0

    def read(self, f0_hz: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P 2"]:
        """Features of a track of F0 (Hz, 0 where unvoiced), float32."""
        voiced = f0_hz > 0
        values = np.where(voiced, self._scaled(np.where(voiced, f0_hz, 1.0)) - self.mean(f0_hz), 0.0) / self.spread
        if self.interpolated and voiced.any():
            places = np.arange(len(f0_hz))
            values = np.interp(places, places[voiced], values[voiced])
        return np.stack([values, voiced], axis=-1).astype(np.float32)

    def f0_hz(self, values: Float[np.ndarray, "P"], mean: float) -> Float[np.ndarray, "P"]:
        """F0 (Hz) that the first of the features stands for around `mean`."""
        scaled = values.astype(np.float64) * self.spread + mean
        return (np.exp(scaled) if self.scale == "log" else np.maximum(scaled, 0.0)).astype(np.float32)

    def _scaled(self, hz: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P"]:
        return np.log(hz) if self.scale == "log" else hz
