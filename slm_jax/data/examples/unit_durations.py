"""Units with how long each lasts: training a duration predictor."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.token_compression.dedup import dedup_row


class UnitDurationConfig(Config):
    """Runs of an utterance's frame-level `units`, padded to `length` runs, or a random window of so many.

    A window is cut between runs, so that every duration is whole; the first and last run of an utterance are cut by
    the recording itself and are kept.
    """

    length: int = 128
    units: str = "units"

    def __post_init__(self) -> None:
        require(self.length > 0, "length", self.length, "at least 1")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with frame-level units `[T]` to one example.

        The example: `units` `[S]` int32, `durations` `[S]` int32 (frames; both 0 where padded), `mask` `[S]`.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            units, durations = dedup_row(item[self.units])
            start = int(rng.integers(max(0, len(units) - self.length) + 1))
            units, durations = units[start : start + self.length], durations[start : start + self.length]
            pad = (0, self.length - len(units))
            return {
                "units": np.pad(units.astype(np.int32), pad),
                "durations": np.pad(durations, pad),
                "mask": np.arange(self.length) < len(units),
            }

        return example
