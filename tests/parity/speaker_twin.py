"""A PyTorch twin of the GE2E speaker encoder under the released names: the whole spectrogram first, then its cuts."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn
mel_filter_bank = pytest.importorskip("transformers.audio_utils").mel_filter_bank

RATE_HZ, N_FFT, HOP = 16_000, 400, 160


class GE2E(nn.Module):
    """`lstm`, `linear` and the two numbers of the loss."""

    def __init__(self, mels: int = 40, width: int = 256, layers: int = 3, embedding: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(mels, width, layers, batch_first=True)
        self.linear = nn.Linear(width, embedding)
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))

    def forward(self, energies: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(energies)
        vectors = self.linear(hidden[-1]).relu()
        return vectors / vectors.norm(dim=1, keepdim=True)


def drawn(**shape: int) -> GE2E:
    """Weights large enough that the energies of speech, which are small, move the vector."""
    torch.manual_seed(0)
    model = GE2E(**shape).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    return model


def energies(samples: np.ndarray, mels: int) -> torch.Tensor:
    """Mel energies, frame t around sample 160 t of a clip with zeros at both ends."""
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    wide = torch.tensor(samples, dtype=torch.float64)
    spectra = torch.stft(wide, N_FFT, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
    filters = mel_filter_bank(N_FFT // 2 + 1, mels, 0.0, RATE_HZ / 2, RATE_HZ, norm="slaney", mel_scale="slaney")
    return (spectra.abs().square().T @ torch.tensor(filters)).float()


def embed(model: GE2E, samples: np.ndarray, frames: int = 160, rate: float = 1.3, least: float = 0.75) -> np.ndarray:
    """One clip: raised to -30 dBFS, filled up with zeros, cut, and the mean of what the cuts give."""
    level = 20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    samples = samples * 10 ** (max(-30.0 - level, 0.0) / 20)
    begins = [0]
    while begins[-1] + frames <= -(-(len(samples) + 1) // HOP):
        begins.append(begins[-1] + round(RATE_HZ / rate / HOP))
    if len(begins) > 1 and len(samples) - HOP * begins[-1] < least * HOP * frames:
        begins.pop()
    missing = HOP * (begins[-1] + frames) - len(samples)
    mels = energies(np.pad(samples, (0, max(0, missing))), model.lstm.input_size)
    with torch.no_grad():
        mean = model(torch.stack([mels[begin : begin + frames] for begin in begins])).mean(0)
    return (mean / mean.norm()).numpy()
