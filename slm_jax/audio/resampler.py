"""A stream of samples at another rate, piece by piece."""

import numpy as np
import soxr
from jaxtyping import Float


class Resampler:
    """What comes out of all pieces together is what `audio.files.resample` makes of the whole; rates in Hz.

    Between equal rates a piece passes as it is. Otherwise some milliseconds are held back until more comes.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._rates = (from_hz, to_hz)
        self._stream = self._new()

    def piece(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "M"]:
        """What is ready after these samples, float32."""
        samples = np.asarray(samples, np.float32)
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def finish(self) -> Float[np.ndarray, "M"]:
        """What was held back; the next piece begins another stream."""
        nothing = np.zeros(0, np.float32)
        rest = nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)
        self._stream = self._new()
        return rest

    def _new(self) -> "soxr.ResampleStream | None":
        low, high = self._rates
        return None if low == high else soxr.ResampleStream(low, high, 1, dtype="float32", quality="HQ")
