"""Harmonics of F0: frequencies, power, continuity in long speech, noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.decoders.excitation import BAND, filled, harmonics, noise, running_cycles, spread
from tests.optimised import optimised

HOP, RATE_HZ = 320, 16_000
excite = jax.jit(harmonics, static_argnames=("hop", "rate_hz"))


def power_db(samples):
    spectrum = np.abs(np.fft.rfft(np.asarray(samples) * np.hanning(len(samples)))) ** 2
    return 10 * np.log10(spectrum / spectrum.max() + 1e-12)


@pytest.mark.parametrize("f0_hz", [100.0, 237.0])
def test_every_harmonic_is_there_with_one_level_and_nothing_else(f0_hz):
    frames = 50
    voiced = jnp.ones((1, frames), bool)
    tone = excite(jnp.full((1, frames), f0_hz), voiced, HOP, RATE_HZ)[0]
    assert abs(float(jnp.mean(tone**2)) - 1.0) < 0.05
    level = power_db(tone)  # 1 s: a bin is 1 Hz
    count = int(BAND * RATE_HZ // f0_hz) + 1
    partials = [level[round(k * f0_hz) - 1 : round(k * f0_hz) + 2].max() for k in range(1, count)]
    between = [level[round((k + 0.5) * f0_hz)] for k in range(1, count)]
    assert min(partials) > -3.0
    assert max(between) < -40.0


def test_unvoiced_frames_are_silent_and_hold_the_last_pitch():
    voiced = jnp.array([[False, True, False, False, True]])
    f0_hz = jnp.array([[0.0, 200.0, 0.0, 0.0, 100.0]])
    assert filled(f0_hz, voiced).tolist() == [[150.0, 200.0, 200.0, 200.0, 100.0]]
    tone = excite(f0_hz, voiced, HOP, RATE_HZ)[0]
    assert not tone[: HOP // 2].any()
    assert not tone[2 * HOP + HOP // 2 : 3 * HOP + HOP // 2].any()
    assert tone[HOP : 2 * HOP].any()


def test_pitch_stays_exact_after_a_minute():
    frames = 50 * 60
    tone = excite(jnp.full((1, frames), 123.0), jnp.ones((1, frames), bool), HOP, RATE_HZ)[0]
    last = power_db(tone[-RATE_HZ:])
    peaks = np.flatnonzero(last > -6.0)
    assert np.abs(peaks / 123.0 - np.round(peaks / 123.0)).max() * 123.0 <= 1.5


@pytest.mark.parametrize("frames", [12, 333])
def test_rows_begin_the_same_to_the_bit_however_long_and_many_they_are(frames):
    f0_hz = 120.0 + 40.0 * jax.random.uniform(jax.random.key(0), (3, 700))
    voiced = jax.random.bernoulli(jax.random.key(1), 0.7, (3, 700))
    end = (frames - 1) * HOP  # the last half frame has no next frame to run to
    short = optimised(excite, f0_hz[1:2, :frames], voiced[1:2, :frames], hop=HOP, rate_hz=RATE_HZ)[:, :end]
    whole = optimised(excite, f0_hz, voiced, hop=HOP, rate_hz=RATE_HZ)
    np.testing.assert_array_equal(whole[1:2, :end], short)
    np.testing.assert_array_equal(noise(jax.random.key(2), 1000)[:, :400], noise(jax.random.key(2), 400))


def test_the_phase_is_that_of_exact_sums():
    cycles = np.random.default_rng(0).uniform(0.002, 0.4, size=(2, 50 * HOP)).astype(np.float32)
    wanted = np.cumsum(cycles.astype(np.float64), axis=1)
    found = np.asarray(running_cycles(jnp.asarray(cycles), HOP), np.float64)
    assert np.abs(found).max() <= 0.5
    apart = found - wanted
    assert np.abs(apart - np.round(apart)).max() < 1e-6


def test_spread_is_straight_between_centres():
    line = spread(jnp.array([[0.0, 1.0, 2.0]]), 4)
    np.testing.assert_allclose(line[0, 2:10], (np.arange(2, 10) + 0.5) / 4 - 0.5, atol=1e-6)
    np.testing.assert_allclose(line[0, :2], 0.0, atol=1e-6)
