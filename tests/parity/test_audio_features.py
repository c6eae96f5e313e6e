"""Signal transforms against PyTorch and the feature extractors of transformers."""

import numpy as np
import pytest

from slm_jax.audio.kaldi import kaldi_fbank
from slm_jax.audio.mel import hifigan_log_mel, mel_filterbank, whisper_log_mel
from slm_jax.audio.stft import istft, stft
from tests.optimised import optimised

TIME = np.arange(9_000) / 16_000
SIGNAL = np.stack([0.3 * np.sin(2 * np.pi * 200 * TIME), 0.2 * np.sin(2 * np.pi * 900 * TIME + 1)])
SIGNAL = (SIGNAL + np.random.default_rng(0).normal(size=SIGNAL.shape) * 0.05).astype(np.float32)


@pytest.mark.parametrize("n_fft, hop, window", [(400, 160, 400), (1024, 256, 800), (64, 16, 64)])
def test_stft_and_inverse_equal_torch(n_fft, hop, window):
    torch = pytest.importorskip("torch")
    hann = torch.hann_window(window)
    expected = torch.stft(torch.tensor(SIGNAL), n_fft, hop, window, hann, center=True, return_complex=True)
    ours = stft(SIGNAL, n_fft, hop, window)
    np.testing.assert_allclose(ours, expected.transpose(1, 2).numpy(), atol=1e-4)
    changed = expected * torch.exp(1j * torch.arange(expected.shape[1]))[None, :, None]  # no signal's own spectrum
    back = torch.istft(changed, n_fft, hop, window, hann, center=True, length=8_900)
    ours_back = istft(changed.transpose(1, 2).numpy(), n_fft, hop, window, length=8_900)
    covered = slice(0, (expected.shape[2] - 1) * hop)
    np.testing.assert_allclose(ours_back[:, covered], back[:, covered].numpy(), atol=1e-4)


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_features(mels):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=mels)
    expected = extractor(list(SIGNAL), sampling_rate=16_000, return_tensors="np").input_features
    padded = np.pad(SIGNAL, ((0, 0), (0, 480_000 - SIGNAL.shape[1])))
    np.testing.assert_allclose(whisper_log_mel(mels).make()(padded), expected.transpose(0, 2, 1), atol=1e-4)


def test_kaldi_fbank_equals_seamless():
    transformers = pytest.importorskip("transformers")
    extractor = transformers.SeamlessM4TFeatureExtractor()
    for row in SIGNAL:
        expected = extractor._extract_fbank_features(row)
        np.testing.assert_allclose(optimised(kaldi_fbank, row[None], scale=32768.0)[0], expected, atol=1e-4)


def test_hifigan_mel_equals_its_definition_in_torch():
    torch = pytest.importorskip("torch")
    padded = torch.nn.functional.pad(torch.tensor(SIGNAL)[:, None], (384, 384), mode="reflect")[:, 0]
    spectra = torch.stft(padded, 1024, 256, 1024, torch.hann_window(1024), center=False, return_complex=True)
    magnitudes = torch.sqrt(torch.view_as_real(spectra).pow(2).sum(-1) + 1e-9)
    filters = torch.tensor(mel_filterbank(80, 1024, 22_050, 0, 8_000))
    expected = torch.log(torch.clamp(magnitudes.transpose(1, 2) @ filters, min=1e-5)).numpy()
    np.testing.assert_allclose(hifigan_log_mel().make()(SIGNAL), expected, atol=1e-4)
