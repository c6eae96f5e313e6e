"""Fundamental frequency: periodicity per frame, one path through all frames, and a close look at its periods.

Three steps, batched, in one jitted call per shape:

1. The autocorrelation of each frame under a Hann window, as in Boersma (1993), but of its *compressed* low-band
   spectrum (Tolonen and Karjalainen 2000): a strong second harmonic then does not pass for the pitch.
2. The path of least cost through the best peaks of every frame and an unvoiced state (Viterbi), so that weak frames
   are decided by their neighbours.
3. The period itself, near the path's, from the difference between a short stretch of the signal and the next one
   (de Cheveigne and Kawahara 2002): the long window of step 1 would bend it where the sound changes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.audio.rates import AnyArray
from slm_jax.audio.stft import frame, window_of
from slm_jax.core.config import Config
from slm_jax.core.errors import require

COMPRESSION = 0.6
"""Exponent on the power spectrum; 1 is the plain autocorrelation."""
NEARBY = 0.08
"""Share of the period by which the close look may change it."""
SILENCE = 1e-5
"""Low-band level (root mean square, full scale 1) under which a frame is unvoiced in any case."""
NEVER = 1e3
"""A cost that no path bears."""
COST_HOP_S = 0.0125
"""Hop for which the costs of a change are given; others scale, so that a change costs as many seconds of evidence."""


class PitchConfig(Config):
    """Settings of the pitch tracker.

    Frame t is centred at `centre_s` + t * `hop_s` seconds; `centre_s` None means half a hop, so that frame t stands
    for samples t * hop up to (t + 1) * hop. `window_s` is the window that periods are looked for in, `close_s` the
    stretch they are measured on. Periodicity is judged below `band_hz`.

    `threshold`: aperiodicity (0 perfect, 1 noise) under which a frame is voiced when its neighbours are like it.
    More is called voiced towards 1, with less certain pitch. It falls by 0.02 for every dB that a frame's low band
    is more than `quiet_db` under the loudest of the row. `octave_cost`: per octave of period, in favour of short
    ones; `jump_cost`: per octave of change; `switch_cost`: per start or end of voicing (all in aperiodicity).
    """

    rate_hz: int = 16_000
    hop_s: float = 0.02
    low_hz: float = 60.0
    high_hz: float = 500.0
    window_s: float = 0.05
    close_s: float = 0.015
    band_hz: float = 1200.0
    candidates: int = 10
    threshold: float = 0.85
    quiet_db: float = 42.0
    octave_cost: float = 0.02
    jump_cost: float = 1.25
    switch_cost: float = 0.6
    centre_s: float | None = None

    def __post_init__(self) -> None:
        pitches, most = (self.low_hz, self.high_hz), self.rate_hz / 4
        require(0 < self.low_hz < self.high_hz < most, "low_hz, high_hz", pitches, "0 < low < high < rate_hz / 4")
        require(self.high_hz < self.band_hz <= self.rate_hz / 2, "band_hz", self.band_hz, "high_hz up to rate_hz / 2")
        for name in ("hop_s", "close_s", "candidates"):
            require(getattr(self, name) > 0, name, getattr(self, name), "must be positive")
        require(self.window_s * self.low_hz >= 2, "window_s", self.window_s, "at least 2 / low_hz (two periods)")
        require(0 < self.threshold < 1, "threshold", self.threshold, "between 0 and 1")
        for name in ("octave_cost", "jump_cost", "switch_cost"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")

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
        """F0 (Hz) and voicing; a row whose mask ends early gets what it gets alone, and is unvoiced beyond."""
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
    hop = round(c.hop_s * c.rate_hz)
    count = samples.shape[1] // hop
    if count == 0:
        return jnp.zeros((len(samples), 0)), jnp.zeros((len(samples), 0), bool)
    samples = jnp.where(mask, samples, 0.0)
    real = jnp.arange(count) < mask.sum(axis=1, keepdims=True) // hop
    centre = hop // 2 if c.centre_s is None else round(c.centre_s * c.rate_hz)
    periodicity, level = _periodicity(samples, centre, count, c)
    lag, strength = _peaks(periodicity, int(c.rate_hz / c.high_hz), c.candidates)
    chosen = _best_path(*_costs(lag, strength, level, real, c), real, c)
    voiced = real & (chosen < lag.shape[-1])
    period = jnp.take_along_axis(lag, jnp.minimum(chosen, lag.shape[-1] - 1)[..., None], axis=-1)[..., 0]
    period = _close_look(samples, period, jnp.arange(count) * hop + centre, c)
    return jnp.where(voiced, c.rate_hz / period, 0.0), voiced


def _longest(c: PitchConfig) -> int:
    """Number of lags (samples, from 0) that are looked at."""
    return int(c.rate_hz / c.low_hz) + 2


def _periodicity(
    samples: Float[Array, "B N"], centre: int, count: int, c: PitchConfig
) -> tuple[Float[Array, "B T L"], Float[Array, "B T"]]:
    """How alike each frame is to itself L samples later (1 at L = 0), and its low-band level."""
    hop, window = round(c.hop_s * c.rate_hz), round(c.window_s * c.rate_hz)
    size, lags = _fft_size(window + _longest(c)), _longest(c)
    shape = window_of("hann", window).astype(np.float32)
    padded = jnp.pad(samples, ((0, 0), (window, window + hop + centre)))
    frames = frame(padded[:, window + centre - window // 2 :], window, hop)[:, :count]
    frames = (frames - (frames * shape).sum(axis=-1, keepdims=True) / shape.sum()) * shape
    bins = int(c.band_hz * size / c.rate_hz) + 1
    weight = _band(np.arange(bins) * c.rate_hz / size, c.band_hz)
    spectrum = jnp.fft.rfft(frames, size)[..., :bins]
    power = spectrum.real**2 + spectrum.imag**2
    likeness = jnp.fft.irfft(jnp.maximum(power, 1e-20) ** COMPRESSION * weight, size)[..., :lags]
    own = np.fft.irfft(np.abs(np.fft.rfft(shape, size)) ** 2)[:lags]
    falling = ((own / own[0]) ** COMPRESSION).astype(np.float32)  # what the window alone takes from longer lags
    level = jnp.sqrt((power * weight).sum(axis=-1) * 2 / (size * float((shape**2).sum())))
    return likeness / (jnp.maximum(likeness[..., :1], 1e-20) * falling), level


def _band(hz: Float[np.ndarray, "F"], band_hz: float) -> Float[np.ndarray, "F"]:
    """Weights of frequencies: a rise up to 50 Hz, against hum and offset, and a fall over the last third."""
    return (np.clip(hz / 50.0, 0, 1) * np.clip((band_hz - hz) / (0.3 * band_hz), 0, 1)).astype(np.float32)


def _fft_size(least: int) -> int:
    """The next even size without prime factors over 5."""
    size = least + least % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def _peaks(
    periodicity: Float[Array, "B T L"], shortest: int, count: int
) -> tuple[Float[Array, "B T C"], Float[Array, "B T C"]]:
    """Lags (samples, interpolated) and heights of the `count` highest peaks; height -1 where there are fewer."""
    before, here, after = periodicity[..., :-2], periodicity[..., 1:-1], periodicity[..., 2:]
    lag = jnp.arange(1, periodicity.shape[-1] - 1)
    is_peak = (here > before) & (here >= after) & (lag >= shortest)
    height, at = jax.lax.top_k(jnp.where(is_peak, here, -1.0), min(count, len(lag)))
    left, middle, right = (jnp.take_along_axis(x, at, axis=-1) for x in (before, here, after))
    shift = _vertex(left, middle, right)
    return at + 1.0 + shift, jnp.where(height > -1, middle - 0.25 * (left - right) * shift, -1.0)


def _vertex(
    left: Float[Array, "*shape"], middle: Float[Array, "*shape"], right: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Where the parabola through three neighbours turns, in steps from the middle one."""
    bend = left - 2 * middle + right
    steep = jnp.abs(bend) > 1e-9
    return jnp.where(steep, 0.5 * (left - right) / jnp.where(steep, bend, 1.0), 0.0).clip(-0.5, 0.5)


def _costs(
    lag: Float[Array, "B T C"],
    strength: Float[Array, "B T C"],
    level: Float[Array, "B T"],
    real: Bool[Array, "B T"],
    c: PitchConfig,
) -> tuple[Float[Array, "B T S"], Float[Array, "B T S"]]:
    """Cost of each state in each frame and its log2 pitch; states S are the C peaks, then unvoiced."""
    possible = (strength > -1) & (level[..., None] > SILENCE)
    octaves = jnp.log2(lag * (c.high_hz / c.rate_hz))
    voiced = jnp.where(possible, 1 - strength + c.octave_cost * octaves, NEVER)
    loudest = jnp.max(jnp.where(real, level, 0.0), axis=1, keepdims=True)
    under_db = -20 * jnp.log10(jnp.maximum(level, 1e-9) / jnp.maximum(loudest, 1e-9)) - c.quiet_db
    unvoiced = c.threshold - 0.02 * jnp.maximum(under_db, 0.0)
    pad = ((0, 0), (0, 0), (0, 1))
    return jnp.concatenate([voiced, unvoiced[..., None]], axis=-1), jnp.pad(-octaves, pad)


def _best_path(
    costs: Float[Array, "B T S"], pitch: Float[Array, "B T S"], real: Bool[Array, "B T"], c: PitchConfig
) -> Int[Array, "B T"]:
    """The state of each frame on the path of least cost (Viterbi); the last state is the unvoiced one.

    Frames that are not real change nothing: the path of a row ends with its last real frame.
    """
    states = costs.shape[-1]
    scale = COST_HOP_S / c.hop_s
    silent = np.arange(states) == states - 1
    switch = (silent[:, None] != silent).astype(np.float32) * (c.switch_cost * scale)
    both = (~silent[:, None] & ~silent).astype(np.float32) * (c.jump_cost * scale)

    def forward(total, now):
        cost, to, since, is_real = now
        reached = total[:, :, None] + both * jnp.abs(to[:, None, :] - since[:, :, None]) + switch
        total = jnp.where(is_real[:, None], reached.min(axis=1) + cost, total)
        return total, jnp.where(is_real[:, None], reached.argmin(axis=1), jnp.arange(states))

    def backward(state, origin):
        before = jnp.take_along_axis(origin, state[:, None], axis=1)[:, 0]
        return before, before

    costs, pitch, real = (jnp.moveaxis(x, 1, 0) for x in (costs, pitch, real))
    total, origins = jax.lax.scan(forward, costs[0], (costs[1:], pitch[1:], pitch[:-1], real[1:]))
    last = total.argmin(axis=-1)
    _, path = jax.lax.scan(backward, last, origins, reverse=True)
    return jnp.moveaxis(jnp.concatenate([path, last[None]]), 0, 1)


def _close_look(
    samples: Float[Array, "B N"], period: Float[Array, "B T"], middle: Int[Array, "T"], c: PitchConfig
) -> Float[Array, "B T"]:
    """The period (samples) near a given one at which the signal around `middle` differs least from what follows."""
    window, lags = round(c.close_s * c.rate_hz), _longest(c)
    span = window + lags
    padded = jnp.pad(samples, ((0, 0), (span, span + abs(round((c.centre_s or 0.0) * c.rate_hz)))))
    # The window and its later copy together are `window` + period long, and lie around the middle of the frame.
    starts = middle + span - jnp.round((window + period) / 2).astype(jnp.int32)
    cut = jax.vmap(jax.vmap(lambda row, at: jax.lax.dynamic_slice(row, (at,), (span,)), (None, 0)))
    difference = _difference(cut(padded, starts), window, lags)
    near = jnp.abs(jnp.arange(lags) - period[..., None]) <= NEARBY * period[..., None] + 1
    best = jnp.argmin(jnp.where(near, difference, jnp.inf), axis=-1, keepdims=True).clip(1, lags - 2)
    left, here, right = (jnp.take_along_axis(difference, best + i, axis=-1)[..., 0] for i in (-1, 0, 1))
    found = best[..., 0] + _vertex(left, here, right)
    return jnp.where((here <= left) & (here <= right), found, period)  # at the edge of what is near there is no dip


def _difference(frames: Float[Array, "B T W"], window: int, lags: int) -> Float[Array, "B T L"]:
    """Squared difference between a window and itself L samples later, over the mean energy of the two."""
    size = _fft_size(frames.shape[-1])
    head = jnp.fft.rfft(frames[..., :window], size)
    products = jnp.fft.irfft(jnp.conj(head) * jnp.fft.rfft(frames, size), size)[..., :lags]
    energy = jnp.cumsum(jnp.pad(frames**2, ((0, 0), (0, 0), (1, 0))), axis=-1)
    later = energy[..., window : window + lags] - energy[..., :lags]
    both = later[..., :1] + later
    return (both - 2 * products) / jnp.maximum(0.5 * both, 1e-12)
