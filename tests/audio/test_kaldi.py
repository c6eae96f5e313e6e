"""Kaldi features against a direct float64 reading of Kaldi's definition, frame by frame and bin by bin."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.kaldi import at_50_hz, deltas, kaldi_fbank, kaldi_mfcc, mfcc, mfcc_frames
from slm_jax.audio.rates import SSL_CONVS, conv_frames
from tests.optimised import optimised

TIME = np.arange(6_000) / 16_000
SPEECHY = (0.2 * np.sin(2 * np.pi * 180 * TIME) + 0.1 * np.sin(2 * np.pi * 2400 * TIME + 1) + 0.05).astype(np.float32)
SIGNAL = np.stack([SPEECHY, SPEECHY[::-1]]) + np.random.default_rng(0).normal(size=(2, 6_000)).astype(np.float32) * 0.02


def oracle_fbank(samples, mels):
    """One loop per step of the definition; no vector tricks shared with the code under test."""
    rows = []
    mel = lambda hz: 1127.0 * np.log(1.0 + hz / 700.0)  # noqa: E731
    low, step = mel(20.0), (mel(8000.0) - mel(20.0)) / (mels + 1)
    for start in range(0, len(samples) - 400 + 1, 160):
        x = samples[start : start + 400].astype(np.float64)
        x = x - x.sum() / 400
        emphasised = [x[0] - 0.97 * x[0]] + [x[i] - 0.97 * x[i - 1] for i in range(1, 400)]
        windowed = [v * (0.5 - 0.5 * np.cos(2 * np.pi * i / 399)) ** 0.85 for i, v in enumerate(emphasised)]
        power = np.abs(np.fft.rfft(windowed, 512)) ** 2
        row = []
        for band in range(mels):
            left, centre, right = (low + (band + k) * step for k in range(3))
            energy = 0.0
            for b in range(256):
                m = mel(b * 16_000 / 512)
                if left < m < right:
                    energy += power[b] * (
                        (m - left) / (centre - left) if m <= centre else (right - m) / (right - centre)
                    )
            row.append(np.log(max(energy, np.finfo(np.float32).eps)))
        rows.append(row)
    return np.array(rows)


def oracle_mfcc(samples):
    bank, rows = oracle_fbank(samples, 23), []
    for row in bank:
        cepstra = []
        for k in range(13):
            scale = np.sqrt((1 if k == 0 else 2) / 23)
            value = scale * sum(e * np.cos(np.pi * k * (m + 0.5) / 23) for m, e in enumerate(row))
            cepstra.append(value * (1 + 11 * np.sin(np.pi * k / 22)))
        rows.append(cepstra)
    return np.array(rows)


def oracle_deltas(values):
    at = lambda t: values[min(max(t, 0), len(values) - 1)]  # noqa: E731
    return np.array([((at(t + 1) - at(t - 1)) + 2 * (at(t + 2) - at(t - 2))) / 10 for t in range(len(values))])


def test_fbank():
    np.testing.assert_allclose(optimised(kaldi_fbank, SIGNAL)[0], oracle_fbank(SIGNAL[0], 80), atol=1e-4)


def test_fbank_of_int16_scale():
    scaled = kaldi_fbank(SIGNAL, scale=32768.0) - kaldi_fbank(SIGNAL)
    np.testing.assert_allclose(scaled, 2 * np.log(32768.0), atol=1e-3)


def test_mfcc_and_deltas():
    static = oracle_mfcc(SIGNAL[1])
    np.testing.assert_allclose(kaldi_mfcc(SIGNAL)[1], static, atol=1e-4)
    first = oracle_deltas(static)
    expected = np.concatenate([static, first, oracle_deltas(first)], axis=1)
    np.testing.assert_allclose(mfcc(SIGNAL)[1], expected, atol=1e-4)


def test_padded_rows_equal_rows_alone():
    mask = np.arange(6_000)[None, :] < np.array([[6_000], [3_456]])
    frames = mfcc_frames(np.where(mask, SIGNAL, 0.7).astype(np.float32), mask)
    alone = mfcc(SIGNAL[1:, :3_456])[0]
    assert int(frames.mask[1].sum()) == len(alone)
    np.testing.assert_allclose(frames.values[1, : len(alone)], alone, atol=1e-4)
    assert not frames.values[1, len(alone) :].any()


def test_deltas_of_a_ramp_by_hand():
    ramp = np.arange(6, dtype=np.float32)[None, :, None] * 2.0
    np.testing.assert_allclose(deltas(jnp.asarray(ramp), jnp.array([6]))[0, :, 0], [1.0, 1.6, 2.0, 2.0, 1.6, 1.0])


@pytest.mark.parametrize("n", [400, 719, 720])
def test_50_hz_grid_is_the_encoders(n):
    features = mfcc(SIGNAL[:, :n])
    every_second, means = at_50_hz(features), at_50_hz(features, mean=True)
    assert every_second.shape[1] == means.shape[1] == conv_frames(n, SSL_CONVS)
    np.testing.assert_array_equal(every_second, features[:, ::2])
    if features.shape[1] > 1:
        np.testing.assert_allclose(means[:, 0], (features[:, 0] + features[:, 1]) / 2, atol=1e-5)
