"""YIN on signals whose pitch is known, and against librosa's."""

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
    np.testing.assert_allclose(found[0, 3:-3], expected[3:-3], rtol=0.015)


def test_noise_and_silence_are_unvoiced():
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.1
    found, voiced = f0(np.stack([noise, np.zeros_like(noise)]))
    assert float(voiced.mean()) < 0.02
    assert not found[np.asarray(~voiced)].any()


def test_voiced_part_of_a_mixed_signal():
    samples = np.concatenate([np.zeros(RATE // 2), voice(150.0, 0.5)])[None].astype(np.float32)
    _, voiced = f0(samples)
    assert not voiced[0, :23].any()
    assert voiced[0, 27:48].all()


def test_mask_and_batch():
    samples = np.stack([voice(150.0), voice(200.0)])
    mask = np.arange(RATE)[None, :] < np.array([[RATE], [RATE // 2]])
    found, voiced = f0(samples, mask=mask)
    alone, voiced_alone = f0(samples[1:, : RATE // 2])
    np.testing.assert_array_equal(voiced[1, :25], voiced_alone[0])
    np.testing.assert_allclose(found[1, :25], alone[0], rtol=1e-3)
    assert not voiced[1, 25:].any()


def test_frame_times_follow_the_config():
    hz = np.linspace(100, 300, RATE)
    grid = PitchConfig(centre_s=0.0125).make()  # the grid of 25 ms windows every 20 ms
    found, _ = grid(voice(hz)[None])
    np.testing.assert_allclose(found[0, 3:-3], hz[200 + 320 * np.arange(50)][3:-3], rtol=0.01)


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


def test_strong_second_harmonic_is_not_taken_for_the_pitch():
    time = np.arange(RATE) / RATE
    samples = 0.1 * np.sin(2 * np.pi * 110 * time) + 0.3 * np.sin(2 * np.pi * 220 * time + 1)
    found, voiced = f0(samples[None].astype(np.float32))
    assert voiced[0, 2:-2].all()
    np.testing.assert_allclose(found[0, 2:-2], 110, rtol=0.01)


def test_errors():
    with pytest.raises(UserError, match="low_hz"):
        PitchConfig(low_hz=600.0)
