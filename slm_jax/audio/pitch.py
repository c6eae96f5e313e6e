"""Fundamental frequency by YIN (de Cheveigne and Kawahara 2002), batched, in one jitted call per shape."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.rates import AnyArray
from slm_jax.audio.stft import frame
from slm_jax.core.config import Config
from slm_jax.core.errors import require

OCTAVE_MARGIN = 0.05
"""Aperiodicity by which a dip may be shallower than the deepest and still be taken for the period."""


class PitchConfig(Config):
    """Settings of the pitch tracker.

    Frame t is centred at `centre_s` + t * `hop_s` seconds; `centre_s` None means half a hop, so that frame t stands
    for samples t * hop up to (t + 1) * hop. `threshold`: aperiodicity (0 perfect, 1 noise) under which a frame is
    voiced. `quiet_db`: frames this far under the loudest of the row are unvoiced.
    """

    rate_hz: int = 16_000
    hop_s: float = 0.02
    low_hz: float = 60.0
    high_hz: float = 500.0
    window_s: float = 0.025
    threshold: float = 0.3
    quiet_db: float = 45.0
    centre_s: float | None = None

    def __post_init__(self) -> None:
        require(
            0 < self.low_hz < self.high_hz < self.rate_hz / 4,
            "low_hz, high_hz",
            (self.low_hz, self.high_hz),
            "0 < low < high < rate_hz / 4",
        )
        require(self.hop_s > 0, "hop_s", self.hop_s, "must be positive")
        require(self.window_s > 0, "window_s", self.window_s, "must be positive")
        require(0 < self.threshold < 1, "threshold", self.threshold, "between 0 and 1")

    def make(self) -> "Pitch":
        """The tracker."""
        return Pitch(self)


class Pitch:
    """`(samples [B, N], mask) -> (f0_hz [B, T], voiced [B, T])`, T = N // hop; F0 is 0 where unvoiced."""

    def __init__(self, config: PitchConfig) -> None:
        self.config = config

    def __call__(
        self, samples: Float[AnyArray, "B N"], mask: Bool[AnyArray, "B N"] | None = None
    ) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
        """F0 (Hz) and voicing; with a mask, frames whose middle lies beyond a row's end are unvoiced."""
        samples = jnp.asarray(samples, jnp.float32)
        mask = jnp.ones(samples.shape, bool) if mask is None else jnp.asarray(mask)
        return _track(samples, mask, self.config)


def f0(
    samples: Float[AnyArray, "B N"],
    rate_hz: int = 16_000,
    hop_s: float = 0.02,
    mask: Bool[AnyArray, "B N"] | None = None,
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """F0 (Hz, 0 where unvoiced) and voicing with the usual settings, one value per `hop_s` seconds."""
    return PitchConfig(rate_hz=rate_hz, hop_s=hop_s).make()(samples, mask)


@partial(jax.jit, static_argnames="c")
def _track(
    samples: Float[Array, "B N"], mask: Bool[Array, "B N"], c: PitchConfig
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    hop, window = round(c.hop_s * c.rate_hz), round(c.window_s * c.rate_hz)
    lags = int(c.rate_hz / c.low_hz) + 2
    centre = hop // 2 if c.centre_s is None else round(c.centre_s * c.rate_hz)
    count = samples.shape[1] // hop
    span = window + lags
    padded = jnp.pad(jnp.where(mask, samples, 0.0), ((0, 0), (span, span + hop)))
    # A lag compares [i, i + window) with itself shifted; the middle of both together is span / 2 after i.
    frames = frame(padded[:, span + centre - span // 2 :], span, hop)[:, :count]
    aperiodicity = _normalised_difference(frames, window, lags)
    lag, dip = _first_dip(aperiodicity, int(c.rate_hz / c.high_hz))
    level = jnp.sqrt(jnp.mean(frames**2, axis=-1))
    loud = level > jnp.maximum(level.max(axis=1, keepdims=True) * 10 ** (-c.quiet_db / 20), 1e-5)
    middle = jnp.minimum(jnp.arange(count) * hop + centre, samples.shape[1] - 1)
    voiced = (dip < c.threshold) & loud & mask[:, middle]
    return jnp.where(voiced, c.rate_hz / lag, 0.0), voiced


def _normalised_difference(frames: Float[Array, "B T W"], window: int, lags: int) -> Float[Array, "B T L"]:
    """Squared difference between a window and itself `lag` later, over its mean at all shorter lags (YIN, eq. 8)."""
    size = 1 << (frames.shape[-1] + window - 1).bit_length()
    head = jnp.fft.rfft(frames[..., :window], size)
    products = jnp.fft.irfft(jnp.conj(head) * jnp.fft.rfft(frames, size), size)[..., :lags]
    energy = jnp.cumsum(jnp.pad(frames**2, ((0, 0), (0, 0), (1, 0))), axis=-1)
    shifted = energy[..., window : window + lags] - energy[..., :lags]
    difference = jnp.maximum(shifted[..., :1] + shifted - 2 * products, 0.0).at[..., 0].set(0.0)
    lag = jnp.arange(lags)
    mean = jnp.cumsum(difference, axis=-1) / jnp.maximum(lag, 1)
    return jnp.where(lag == 0, 1.0, difference / jnp.maximum(mean, 1e-12))


def _first_dip(aperiodicity: Float[Array, "B T L"], shortest: int) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Lag (samples, interpolated) and depth of the first local minimum about as deep as the deepest.

    A multiple of the period is as deep as the period and comes later; half a period, where the second harmonic is
    strong, comes earlier but is shallower. YIN's fixed threshold would take it.
    """
    before, here, after = aperiodicity[..., :-2], aperiodicity[..., 1:-1], aperiodicity[..., 2:]
    lag = jnp.arange(1, aperiodicity.shape[-1] - 1)
    dips = jnp.where((here <= before) & (here < after) & (lag >= shortest), here, jnp.inf)
    chosen = jnp.argmax(dips <= dips.min(axis=-1, keepdims=True) + OCTAVE_MARGIN, axis=-1, keepdims=True)
    left, depth, right = (jnp.take_along_axis(x, chosen, axis=-1)[..., 0] for x in (before, here, after))
    bend = left - 2 * depth + right
    shift = jnp.where(bend > 1e-9, 0.5 * (left - right) / jnp.maximum(bend, 1e-9), 0.0)
    return chosen[..., 0] + 1.0 + jnp.clip(shift, -0.5, 0.5), depth
