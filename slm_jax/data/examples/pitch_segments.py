"""Segments of tracks of F0 as networks read them: training codes of pitch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slm_jax.audio.pitch_features import PitchFeaturesConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require


class PitchSegmentConfig(Config):
    """A random segment of `values` values of the field `f0`; the mean that is taken off is that of the whole track."""

    values: int
    features: PitchFeaturesConfig = PitchFeaturesConfig()
    f0: str = "f0_hz"

    def __post_init__(self) -> None:
        require(self.values > 0, "values", self.values, "above 0")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with F0 (Hz, 0 where unvoiced) to one example.

        The example: `tracks` `[P, 2]` float32 (F0 as the features say, voicing) and `track_mask` `[P]`.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            tracks = self.features.read(item[self.f0])
            start = int(rng.integers(max(0, len(tracks) - self.values) + 1))
            found = tracks[start : start + self.values]
            filled = np.pad(found, ((0, self.values - len(found)), (0, 0)))
            return {"tracks": filled, "track_mask": np.arange(self.values) < len(found)}

        return example
