"""Segments of waveforms as they are, or as another microphone, room or line might have made them: training codecs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.data.passes import float_samples

POINTS = 8
"""Frequencies, evenly spaced on a logarithmic axis, between which an equaliser's gain is a straight line."""


class ChannelConfig(Config):
    """What happens to a `share` of the segments. Ranges are drawn from evenly; frequencies in Hz on a logarithmic axis.

    `gain_db` of the whole; `equaliser_db`: gains of its points up and down; `low_hz` and `high_hz`: edges of the band
    that is left, each cut in a share `edges` of these segments; `noise_db`: white noise this far below the segment's
    power, None for none.
    """

    share: float = 0.5
    gain_db: tuple[float, float] = (-20.0, 3.0)
    equaliser_db: float = 6.0
    low_hz: tuple[float, float] = (50.0, 400.0)
    high_hz: tuple[float, float] = (3_000.0, 8_000.0)
    edges: float = 0.5
    noise_db: tuple[float, float] | None = (15.0, 50.0)

    def __post_init__(self) -> None:
        for name in ("share", "edges"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "must be in [0, 1]")
        for name in ("gain_db", "low_hz", "high_hz", "noise_db"):
            low, high = getattr(self, name) or (0.0, 0.0)
            require(low <= high, name, (low, high), "from the lower to the higher")

    def make(self, rate_hz: int) -> Callable[[Float[np.ndarray, "N"], np.random.Generator], Float[np.ndarray, "N"]]:
        """A function that may change samples, within [-1, 1]."""

        def change(samples: Float[np.ndarray, "N"], rng: np.random.Generator) -> Float[np.ndarray, "N"]:
            if rng.random() >= self.share:
                return samples
            spectrum = np.fft.rfft(samples)
            hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
            filtered = np.fft.irfft(spectrum * self._response(hz, rate_hz, rng), len(samples))
            heard = filtered if self.noise_db is None else noisy(filtered, self.noise_db, rng)
            made = heard * 10 ** (rng.uniform(*self.gain_db) / 20)
            return (made / max(1.0, np.abs(made).max())).astype(np.float32)

        return change

    def _response(self, hz: Float[np.ndarray, "F"], rate_hz: int, rng: np.random.Generator) -> Float[np.ndarray, "F"]:
        """Gain at every frequency."""
        points = np.geomspace(50.0, rate_hz / 2, POINTS)
        gains = rng.uniform(-self.equaliser_db, self.equaliser_db, POINTS)
        response = 10 ** (np.interp(np.log(np.maximum(hz, 1.0)), np.log(points), gains) / 20)
        for (low, high), keeps in ((self.low_hz, np.greater), (self.high_hz, np.less)):
            edge = np.exp(rng.uniform(np.log(low), np.log(high)))
            response = np.where(keeps(hz, edge), response, 0.0) if rng.random() < self.edges else response
        return response


LOUDNESS = ChannelConfig(share=1.0, gain_db=(-10.0, 6.0), equaliser_db=0.0, edges=0.0, noise_db=None)
"""Nothing but how loud it is, as EnCodec is trained."""


class WaveformSegmentConfig(Config):
    """A random segment of `samples` samples at `rate_hz`, changed by `channel` where there is one.

    `heard_hz`: the same at another rate too, for a teacher.
    """

    samples: int
    rate_hz: int
    channel: ChannelConfig | None = None
    heard_hz: int | None = None

    def __post_init__(self) -> None:
        require(self.samples > 0, "samples", self.samples, "above 0")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `samples` `[N]` to float32 `samples` of the segment and `sample_mask`.

        With `heard_hz` also to `heard` and `heard_mask`.
        """
        change = None if self.channel is None else self.channel.make(self.rate_hz)

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            start = int(rng.integers(max(0, len(item["samples"]) - self.samples) + 1))
            samples = float_samples(item["samples"][start : start + self.samples])
            samples = samples if change is None else change(samples, rng)
            filled, mask = filled_up(samples, self.samples)
            row = {"samples": filled, "sample_mask": mask}
            if self.heard_hz is None:
                return row
            heard = resample(samples, self.rate_hz, self.heard_hz)
            filled, mask = filled_up(heard, round(self.samples * self.heard_hz / self.rate_hz))
            return row | {"heard": filled, "heard_mask": mask}

        return example


def noisy(
    samples: Float[np.ndarray, "N"], below_db: tuple[float, float], rng: np.random.Generator
) -> Float[np.ndarray, "N"]:
    """White noise added, so far below the power of what is there."""
    power = np.sqrt(np.square(samples).mean() + 1e-12)
    return samples + rng.standard_normal(len(samples)) * power * 10 ** (-rng.uniform(*below_db) / 20)


def filled_up(samples: Float[np.ndarray, "N"], size: int) -> tuple[Float[np.ndarray, "M"], Bool[np.ndarray, "M"]]:
    """`size` samples, the last of them zeros, and which are not."""
    return np.pad(samples, (0, size - len(samples))), np.arange(size) < len(samples)
