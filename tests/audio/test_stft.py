"""STFT, its inverse, Griffin-Lim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.stft import frame, griffin_lim, istft, overlap_add, pad_reflected, stft, window_of
from slm_jax.core.errors import UserError

NOISE = np.random.default_rng(0).normal(size=(2, 2000)).astype(np.float32)


@pytest.mark.parametrize("window, hop", [(400, 160), (64, 16), (10, 10), (7, 10)])
def test_frame_cuts_what_slicing_cuts(window, hop):
    frames = frame(NOISE, window, hop)
    expected = np.stack([NOISE[:, s : s + window] for s in range(0, 2000 - window + 1, hop)], axis=1)
    np.testing.assert_array_equal(frames, expected)


def test_frame_of_too_little_is_empty():
    assert frame(NOISE[:, :10], 11, 5).shape == (2, 0, 11)


@pytest.mark.parametrize("window, hop", [(400, 160), (64, 16), (7, 10)])
def test_overlap_add_is_the_transpose_of_frame(window, hop):
    frames = jax.random.normal(jax.random.key(0), frame(NOISE, window, hop).shape)
    left = jnp.vdot(frame(NOISE, window, hop), frames)
    added = overlap_add(frames, hop)
    assert added.shape == (2, (frames.shape[1] - 1) * hop + window)
    np.testing.assert_allclose(left, jnp.vdot(NOISE[:, : added.shape[1]], added[:, :2000]), rtol=1e-4)


@pytest.mark.parametrize("n_fft, hop, window", [(400, 160, None), (512, 128, 400), (64, 16, None)])
def test_inverse_is_exact(n_fft, hop, window):
    spectra = stft(NOISE, n_fft, hop, window)
    np.testing.assert_allclose(istft(spectra, n_fft, hop, window, length=2000), NOISE, atol=1e-5)


def test_inverse_without_centring():
    spectra = stft(NOISE, 400, 100, centre=False)
    np.testing.assert_allclose(istft(spectra, 400, 100, centre=False)[:, 50:-50], NOISE[:, 50:-50], atol=1e-4)


def test_spectrum_of_a_tone_by_hand():
    samples = np.cos(2 * np.pi * 8 * np.arange(256) / 64)[None].astype(np.float32)
    spectra = stft(samples, 64, 16, window="ones", centre=False)
    expected = np.zeros(33)
    expected[8] = 32.0
    np.testing.assert_allclose(jnp.abs(spectra[0, 0]), expected, atol=1e-4)


def test_padded_row_equals_row_alone():
    mask = np.arange(2000)[None, :] < np.array([[2000], [1234]])
    garbage = np.where(mask, NOISE, 0.0).astype(np.float32)
    together = stft(garbage, 400, 160, mask=mask)
    alone = stft(NOISE[1:, :1234], 400, 160)
    np.testing.assert_allclose(together[1:, : alone.shape[1]], alone, atol=2e-5)
    np.testing.assert_allclose(together[:1], stft(NOISE[:1], 400, 160), atol=2e-5)


def test_reflection_by_hand():
    row = np.array([[1.0, 2.0, 3.0, 9.0]], np.float32)
    mask = np.array([[True, True, True, False]])
    np.testing.assert_array_equal(pad_reflected(row, 2, 2, mask), [[3, 2, 1, 2, 3, 2, 1, 0]])
    np.testing.assert_array_equal(pad_reflected(row[:, :3], 2, 2), [[3, 2, 1, 2, 3, 2, 1]])


def test_gradients_are_finite():
    gradient = jax.grad(lambda x: jnp.sum(jnp.abs(istft(stft(x, 64, 16), 64, 16)) ** 2))(jnp.asarray(NOISE))
    assert jnp.isfinite(gradient).all()
    assert jnp.abs(gradient).max() > 0


def test_griffin_lim_finds_a_signal_of_that_spectrum():
    time = np.arange(4096) / 16_000
    samples = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 9)).astype(np.float32)[None]
    magnitudes = jnp.abs(stft(samples, 256, 64))

    def distance(iterations):
        made = griffin_lim(magnitudes, jax.random.key(1), 256, 64, iterations=iterations, length=4096)
        return jnp.linalg.norm(jnp.abs(stft(made, 256, 64)) - magnitudes) / jnp.linalg.norm(magnitudes)

    assert distance(60) < 0.115
    assert distance(60) < 0.5 * distance(0)


def test_errors():
    with pytest.raises(UserError, match="window_length is 500"):
        stft(NOISE, 400, 160, 500)
    with pytest.raises(UserError, match="hann"):
        window_of("hamming", 10)
