"""Speech through HiFi-GAN V1 twice, in JAX and in PyTorch: waveforms, PESQ and STOI side by side.

    python experiments/fetch/real_weights.py weights --models hifigan-v1-ljspeech
    python experiments/fetch/real_speech.py speech --sets librivox
    python experiments/hifigan_resynthesis/resynthesise.py weights/hifigan-v1-ljspeech speech/librivox/audio/*.flac

Each side makes the spectrogram and the waveform on its own: ours by `audio.mel` and `decoders.mel_vocoder`, PyTorch's
by `torch.stft` with the filters of transformers and the generator of the original repository. Both are judged against
the recording at 16 kHz. Writes `figures.json` and `spectrograms.png` beside this file (or to --out).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slm_jax.audio.files import read_audio, resample
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.evaluation.resynthesis import log_mel_distance, stoi
from slm_jax.interop.model import load, read_hub_config
from slm_jax.interop.readers import open_weights
from slm_jax.interop.reference_hifigan import original_generator

JUDGED_HZ = 16_000
"""The rate at which PESQ is defined (wide band)."""
SHOWN_S = 3


class Ours:
    """Recording -> mels `[T, M]` -> samples, in JAX."""

    def __init__(self, folder: Path) -> None:
        self.config, params = load(folder)
        assert isinstance(self.config, MelVocoderConfig) and self.config.features is not None
        self._mel, self._params = self.config.features.make(), params
        self._apply = jax.jit(self.config.make().apply)

    def mels(self, samples: np.ndarray) -> np.ndarray:
        return np.asarray(self._mel(samples[None])[0])

    def speak(self, mels: np.ndarray) -> np.ndarray:
        return np.asarray(self._apply({"params": self._params}, mels[None])[0])


class PyTorchs:
    """The same by PyTorch, with the recipe of the original repository."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers.audio_utils import mel_filter_bank

        self.hub = read_hub_config(folder)
        weights = open_weights(folder)
        self._generator = original_generator(self.hub)
        self._generator.load_state_dict({name: torch.tensor(weights.read(name)) for name in weights.shapes})
        self._generator.eval()
        band = self.hub["fmin"], self.hub["fmax"], self.hub["sampling_rate"]
        bins = self.hub["n_fft"] // 2 + 1
        filters = mel_filter_bank(bins, self.hub["num_mels"], *band, norm="slaney", mel_scale="slaney")
        self._filters = torch.tensor(filters, dtype=torch.float32)

    def mels(self, samples: np.ndarray) -> np.ndarray:
        import torch

        n_fft, hop, window = self.hub["n_fft"], self.hub["hop_size"], self.hub["win_size"]
        reach = (n_fft - hop) // 2
        padded = torch.nn.functional.pad(torch.tensor(samples)[None, None], (reach, reach), mode="reflect")[0]
        hann = torch.hann_window(window)
        spectrum = torch.stft(padded, n_fft, hop, window, hann, center=False, return_complex=True)[0]
        energies = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9).T @ self._filters
        return torch.log(torch.clamp(energies, min=1e-5)).numpy()

    def speak(self, mels: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self._generator(torch.tensor(mels).T[None])[0, 0].numpy()


def judge(recording: np.ndarray, made: np.ndarray, rate_hz: int) -> dict[str, float]:
    """PESQ (wide band, ITU-T P.862.2), STOI and log-mel distance of `made` against `recording`, both at `rate_hz`."""
    from pesq import pesq

    size = min(len(recording), len(made))
    here, there = (resample(samples[:size], rate_hz, JUDGED_HZ) for samples in (recording, made))
    return {
        "pesq": float(pesq(JUDGED_HZ, here, there, "wb")),
        "stoi": stoi(here, there, JUDGED_HZ),
        "log_mel_distance": log_mel_distance(here, there, JUDGED_HZ),
    }


def compare(folder: Path, recordings: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Figures of all recordings (samples at the vocoder's rate by name), and the signals of the first one."""
    ours, theirs = Ours(folder), PyTorchs(folder)
    rate_hz, rows, first = ours.config.rate_hz, {}, {}
    for name, samples in recordings.items():
        mels, reference_mels = ours.mels(samples), theirs.mels(samples)
        made, reference = ours.speak(mels), theirs.speak(reference_mels)
        rows[name] = {
            "seconds": len(samples) / rate_hz,
            "largest_mel_difference": float(np.abs(mels - reference_mels).max()),
            "largest_difference_on_the_same_mels": float(np.abs(ours.speak(reference_mels) - reference).max()),
            "largest_difference": float(np.abs(made - reference).max()),
            "largest_sample": float(np.abs(reference).max()),
            "ours": judge(samples, made, rate_hz),
            "pytorch": judge(samples, reference, rate_hz),
        }
        first = first or {"recording": samples, "JAX": made, "PyTorch": reference}
    means = {side: _mean([row[side] for row in rows.values()]) for side in ("ours", "pytorch")}
    return {"rate_hz": rate_hz, "mean": means, "recordings": rows}, first


def plot(path: Path, signals: dict[str, np.ndarray], rate_hz: int) -> None:
    """The spectrograms of the first seconds of some signals below each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.7 * len(signals)), layout="constrained")
    for axes, (name, samples) in zip(figure.subplots(len(signals), sharex=True), signals.items(), strict=True):
        shown = samples[: SHOWN_S * rate_hz] + 1e-7  # so that silence has a logarithm
        axes.specgram(shown, NFFT=1024, Fs=rate_hz, noverlap=768, vmin=-140, vmax=-30, cmap="magma")
        axes.set(ylabel=f"{name}\nHz", ylim=(0, 8000))
    axes.set_xlabel("s")
    figure.savefig(path, dpi=70)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the folder of the fetcher")
    parser.add_argument("audio", type=Path, nargs="+", help="recordings of speech")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the results go")
    options = parser.parse_args()
    rate_hz = read_hub_config(options.weights)["sampling_rate"]
    recordings = {path.stem: read_audio(path, rate_hz=rate_hz) for path in options.audio}
    figures, signals = compare(options.weights, recordings)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plot(options.out / "spectrograms.png", signals, rate_hz)
    print(json.dumps(figures["mean"], indent=1))


if __name__ == "__main__":
    main()
