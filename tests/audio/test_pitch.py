"""The pitch tracker on signals whose pitch is known, and against librosa's."""

import jax
import numpy as np
import pytest

from slm_jax.audio.pitch import PitchConfig, f0
from slm_jax.core.errors import UserError

RATE = 16_000


def voice(hz, seconds=1.0, harmonics=8):
    """Harmonics of a (possibly gliding) fundamental `hz`, a number or one value per sample."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, round(seconds * RATE))) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, harmonics + 1)).astype(np.float32) * 0.2


@pytest.mark.parametrize("hz", [75.0, 120.0, 233.0, 410.0])
def test_steady_tones(hz):
    found, voiced = f0(voice(hz)[None])
    assert found.shape == (1, 50)
    assert voiced[0, 2:-2].all()
    np.testing.assert_allclose(found[0, 2:-2], hz, rtol=2e-3)


def test_glide_follows_the_middle_of_each_frame():
    hz = np.linspace(100, 300, RATE)
    found, voiced = f0(voice(hz)[None])
    expected = hz[160 + 320 * np.arange(50)]
    assert voiced[0, 3:-3].all()
    np.testing.assert_allclose(found[0, 3:-3], expected[3:-3], rtol=0.006)


def low_noise(rng):
    """Noise that falls by 3 dB per octave: most of it lies where voices do."""
    spectrum = np.fft.rfft(rng.normal(size=RATE)) / np.sqrt(np.arange(RATE // 2 + 1) + 20)
    samples = np.fft.irfft(spectrum)
    return (0.1 * samples / samples.std()).astype(np.float32)


def test_noise_and_silence_are_unvoiced():
    rng = np.random.default_rng(0)
    white = rng.normal(size=RATE).astype(np.float32) * 0.1
    for samples in (white, low_noise(rng)):
        assert float(f0(samples[None])[1].mean()) <= 0.02
    found, voiced = f0(np.zeros((1, RATE), np.float32))
    assert not voiced.any()
    assert not found[np.asarray(~voiced)].any()


def test_a_weak_stretch_is_decided_by_its_neighbours():
    """60 ms of a voice in noise of its own level: its periodicity alone would leave gaps or octave errors."""
    samples = voice(170.0)
    rng = np.random.default_rng(2)
    samples[8000:8960] += rng.normal(size=960).astype(np.float32) * samples.std()
    found, voiced = f0(samples[None])
    assert voiced[0, 2:-2].all()
    np.testing.assert_allclose(found[0, 2:-2], 170.0, rtol=0.08)


def test_threshold_makes_more_or_less_voiced():
    rng = np.random.default_rng(3)
    hoarse = (voice(140.0) + 1.2 * low_noise(rng))[None]
    share = [float(track(hoarse)[1].mean()) for track in (PitchConfig(threshold=0.2).make(), f0)]
    assert share[0] < 0.1 and share[1] > 0.8


def test_quiet_frames_are_unvoiced():
    """80 dB under the loudest a perfect tone is a remnant (of a filter, of the room), 20 dB under it a voice."""
    gain = np.repeat([1.0, 1e-4, 1.0, 0.1], RATE // 4)
    _, voiced = f0((voice(150.0) * gain)[None].astype(np.float32))
    assert not voiced[0, 15:23].any()
    assert voiced[0, 28:48].all()


def test_voiced_part_of_a_mixed_signal():
    samples = np.concatenate([np.zeros(RATE // 2), voice(150.0, 0.5)])[None].astype(np.float32)
    _, voiced = f0(samples)
    assert not voiced[0, :23].any()
    assert voiced[0, 27:48].all()


def test_rows_of_a_padded_batch_get_what_they_get_alone():
    rng = np.random.default_rng(1)
    samples = np.stack([voice(150.0), voice(np.linspace(220, 110, RATE))]) + 0.01 * rng.normal(size=(2, RATE))
    samples = samples.astype(np.float32)
    length = 9123  # no whole number of frames; what lies beyond is not silence
    found, voiced = f0(samples, mask=np.arange(RATE) < np.array([[RATE], [length]]))
    alone, voiced_alone = f0(samples[1:, :length])
    count = length // 320
    assert alone.shape == (1, count) and voiced_alone[0, 2:-2].all()
    np.testing.assert_array_equal(voiced[1, :count], voiced_alone[0])
    np.testing.assert_allclose(found[1, :count], alone[0], rtol=1e-4)
    assert not voiced[1, count:].any() and not found[1, count:].any()
    np.testing.assert_allclose(found[0], f0(samples[:1])[0][0], rtol=1e-4)


def test_jit_and_short_rows():
    samples = voice(200.0)[None]
    for found, eager in zip(jax.jit(PitchConfig().make())(samples), f0(samples), strict=True):
        np.testing.assert_allclose(found, eager, rtol=1e-5)
    for size in (0, 319, 320):
        found, voiced = f0(samples[:, :size])
        assert found.shape == voiced.shape == (1, size // 320)


def test_frame_times_follow_the_config():
    hz = np.linspace(100, 300, RATE)
    grid = PitchConfig(centre_s=0.0125).make()  # the grid of 25 ms windows every 20 ms
    found, _ = grid(voice(hz)[None])
    np.testing.assert_allclose(found[0, 3:-3], hz[200 + 320 * np.arange(50)][3:-3], rtol=0.006)


def test_agrees_with_librosa():
    librosa = pytest.importorskip("librosa", reason="librosa is not installed")
    hz = 160 + 20 * np.sin(2 * np.pi * np.arange(RATE) / RATE)
    samples = voice(hz) + np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.005
    reference = librosa.yin(samples, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=320)
    found, voiced = f0(samples[None].astype(np.float32))
    between = (reference[:-1] + reference[1:]) / 2  # librosa's frames stand at t * hop, ours half a hop later
    kept = slice(5, 45)
    assert voiced[0, kept].all()
    np.testing.assert_allclose(found[0, kept], between[kept], rtol=0.01)


@pytest.mark.parametrize(("hz", "strength"), [(110, 3.0), (85, 5.0), (200, 3.0)])
def test_strong_second_harmonic_is_not_taken_for_the_pitch(hz, strength):
    time = np.arange(RATE) / RATE
    samples = 0.05 * np.sin(2 * np.pi * hz * time) + 0.05 * strength * np.sin(4 * np.pi * hz * time + 1)
    found, voiced = f0(samples[None].astype(np.float32))
    assert voiced[0, 2:-2].all()
    np.testing.assert_allclose(found[0, 2:-2], hz, rtol=0.01)


def test_other_rates():
    time = np.arange(24_000) / 24_000
    samples = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 9))[None].astype(np.float32) * 0.2
    found, voiced = f0(samples, rate_hz=24_000, hop_s=0.01)
    assert voiced[0, 3:-3].all()
    np.testing.assert_allclose(found[0, 3:-3], 130, rtol=2e-3)


@pytest.mark.parametrize(
    ("field", "value"), [("low_hz", 600.0), ("threshold", 1.0), ("window_s", 0.02), ("band_hz", 400.0), ("hop_s", 0.0)]
)
def test_errors(field, value):
    with pytest.raises(UserError, match=field):
        PitchConfig(**{field: value})
