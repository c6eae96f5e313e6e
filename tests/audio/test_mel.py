"""Log-mel spectrograms and filter banks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.mel import (
    LogMelConfig,
    hifigan_log_mel,
    hz_to_mel,
    mel_filterbank,
    mel_to_hz,
    spectrum_from_mel,
    whisper_log_mel,
)
from slm_jax.core.errors import UserError

NOISE = np.random.default_rng(0).normal(size=(2, 4000)).astype(np.float32) * 0.1
SETTINGS = {
    "front end": LogMelConfig(),
    "whisper": whisper_log_mel(),
    "hifigan": hifigan_log_mel(16_000, 512, 128),
    "centred": LogMelConfig(padding="centre", compression="log10", mel_scale="htk", power=2),
}


@pytest.mark.parametrize("scale", ["slaney", "htk", "kaldi"])
def test_scales_are_inverse(scale):
    hz = np.array([0.0, 100.0, 999.0, 1000.0, 1001.0, 7999.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-8)


def test_known_mels():
    np.testing.assert_allclose(hz_to_mel(1000.0), 15.0)
    np.testing.assert_allclose(hz_to_mel(6400.0), 42.0)
    np.testing.assert_allclose(hz_to_mel(700.0, "htk"), 2595 * np.log10(2))


@pytest.mark.parametrize("rate_hz, n_fft, mels, low, high", [(16_000, 400, 80, 0, 8000), (22_050, 1024, 80, 0, 8000)])
def test_filters_equal_librosa(rate_hz, n_fft, mels, low, high):
    librosa_filters = pytest.importorskip("librosa.filters")
    for scale, htk in (("slaney", False), ("htk", True)):
        expected = librosa_filters.mel(sr=rate_hz, n_fft=n_fft, n_mels=mels, fmin=low, fmax=high, htk=htk).T
        np.testing.assert_allclose(mel_filterbank(mels, n_fft, rate_hz, low, high, scale), expected, atol=1e-7)


@pytest.mark.parametrize("name", SETTINGS)
def test_padded_rows_equal_rows_alone(name):
    mel, lengths = SETTINGS[name].make(), (4000, 2777)
    mask = np.arange(4000)[None, :] < np.array(lengths)[:, None]
    frames = mel.frames(np.where(mask, NOISE, 7.0).astype(np.float32), mask)  # garbage where there is nothing
    for row, length in enumerate(lengths):
        alone = mel(NOISE[row : row + 1, :length])
        assert alone.shape[1] == mel.frame_count(length) == int(frames.mask[row].sum())
        np.testing.assert_allclose(frames.values[row, : alone.shape[1]], alone[0], atol=1e-4)
        assert not frames.values[row, alone.shape[1] :].any()


def test_rates_of_the_recipes():
    assert whisper_log_mel().make().frame_count(480_000) == 3000
    assert hifigan_log_mel().make().frame_count(256 * 100) == 100
    assert LogMelConfig().make().frame_count(16_000) == 98


def test_jit_equals_eager():
    mel = LogMelConfig().make()
    with jax.disable_jit():
        eager = mel(NOISE)
    np.testing.assert_allclose(mel(NOISE), eager, atol=1e-4)


def test_floor_and_gradient_in_silence():
    mel = LogMelConfig().make()
    np.testing.assert_allclose(mel(np.zeros((1, 800), np.float32)), np.log(1e-5), rtol=0.2)
    gradient = jax.grad(lambda x: mel(x).sum())(jnp.zeros((1, 800)))
    assert jnp.isfinite(gradient).all()


def test_spectrum_from_mel_keeps_the_mels():
    config = LogMelConfig(n_fft=512, window_length=512, padding="centre")
    mel = config.make()
    energies = jnp.exp(mel(NOISE))
    spectrum = spectrum_from_mel(energies, mel.filters)
    assert (spectrum >= 0).all()
    rebuilt = spectrum @ mel.filters
    assert float(jnp.abs(jnp.log(rebuilt / energies)).mean()) < 0.06


@pytest.mark.parametrize(
    "change, field",
    [
        ({"high_hz": 9000.0}, "high_hz"),
        ({"window_length": 401}, "window_length"),
        ({"padding": "center"}, "padding"),
        ({"power": 3}, "power"),
        ({"compression": "db"}, "compression"),
    ],
)
def test_config_errors(change, field):
    with pytest.raises(UserError, match=field):
        LogMelConfig(**change)
