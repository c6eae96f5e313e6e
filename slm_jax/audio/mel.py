"""Log-mel spectrograms: one configurable form with the recipes of Whisper, HiFi-GAN and this project's front end."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slm_jax.audio.rates import AnyArray, centred_frame_count, frame_count, lengths_of, mask_of
from slm_jax.audio.stft import pad_reflected, stft
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames


class LogMelConfig(Config):
    """Settings of a log-mel spectrogram; lengths in samples, frequencies in Hz.

    `padding`: `none` (frame t covers `n_fft` samples from t * hop), `centre` (around t * hop, ends mirrored) or
    `hop` ((n_fft - hop) / 2 mirrored on each side, so that T = N // hop, as HiFi-GAN). `power`: 1 magnitude, 2 energy.
    `compression`: `ln`, `log10`, or `whisper` (log10, at most 8 under the row's peak, then (x + 4) / 4).
    """

    rate_hz: int = 16_000
    n_fft: int = 400
    window_length: int = 400
    hop: int = 160
    mels: int = 80
    low_hz: float = 0.0
    high_hz: float = 8_000.0
    mel_scale: str = "slaney"
    padding: str = "none"
    drop_last: bool = False
    power: int = 1
    floor: float = 1e-5
    compression: str = "ln"

    def __post_init__(self) -> None:
        require(0 < self.window_length <= self.n_fft, "window_length", self.window_length, f"1 to n_fft {self.n_fft}")
        require(self.hop > 0, "hop", self.hop, "must be positive")
        require(self.mels > 0, "mels", self.mels, "must be positive")
        in_band = 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2
        require(in_band, "low_hz, high_hz", (self.low_hz, self.high_hz), "0 <= low < high <= rate_hz / 2")
        require(self.mel_scale in ("slaney", "htk"), "mel_scale", self.mel_scale, "slaney or htk")
        require(self.padding in ("none", "centre", "hop"), "padding", self.padding, "none, centre or hop")
        require(self.power in (1, 2), "power", self.power, "1 (magnitude) or 2 (energy)")
        require(self.floor > 0, "floor", self.floor, "must be positive")
        known = ("ln", "log10", "whisper")
        require(self.compression in known, "compression", self.compression, "ln, log10 or whisper")

    def make(self) -> "LogMel":
        """The transform."""
        return LogMel(self)


def whisper_log_mel(mels: int = 80) -> LogMelConfig:
    """Whisper's features (Radford et al. 2022): 16 kHz, 25 ms every 10 ms; cut or pad to 30 s before, as it does."""
    return LogMelConfig(mels=mels, padding="centre", drop_last=True, power=2, floor=1e-10, compression="whisper")


def hifigan_log_mel(rate_hz: int = 22_050, n_fft: int = 1024, hop: int = 256) -> LogMelConfig:
    """HiFi-GAN's features (Kong et al. 2020, V1): ln of magnitude mels, floor 1e-5, 0 to 8 kHz."""
    return LogMelConfig(rate_hz=rate_hz, n_fft=n_fft, window_length=n_fft, hop=hop, padding="hop")


class LogMel:
    """A log-mel spectrogram: `samples [B, N] -> [B, T, M]`; `frames` also takes and gives a mask."""

    def __init__(self, config: LogMelConfig) -> None:
        self.config = config
        self.filters = self.filterbank(np.float32)

    def __call__(self, samples: Float[AnyArray, "B N"]) -> Float[Array, "B T M"]:
        """Features of rows without padding."""
        return _features(samples, None, self.config).values

    def frames(self, samples: Float[AnyArray, "B N"], mask: Bool[AnyArray, "B N"]) -> Frames:
        """Features of right-padded rows: each real frame is what the row gives alone; the others are zero."""
        return _features(samples, mask, self.config)

    def filterbank(self, dtype: Any) -> Float[np.ndarray, "F M"]:
        """The filters, as precise as `dtype`."""
        c = self.config
        return mel_filterbank(c.mels, c.n_fft, c.rate_hz, c.low_hz, c.high_hz, c.mel_scale, dtype)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        c = self.config
        if c.padding == "centre":
            return centred_frame_count(n, c.hop) - int(c.drop_last)
        added = 2 * ((c.n_fft - c.hop) // 2) if c.padding == "hop" else 0
        return frame_count(n + added, c.n_fft, c.hop)


@partial(jax.jit, static_argnames="c")
def _features(samples: Float[AnyArray, "B N"], mask: Bool[AnyArray, "B N"] | None, c: LogMelConfig) -> Frames:
    samples = jnp.asarray(samples)
    samples = samples.astype(jnp.promote_types(samples.dtype, jnp.float32))
    if mask is None:
        levels = _compressed(_energies(samples, None, c), None, c)
        return Frames(levels, jnp.ones(levels.shape[:2], bool))
    energies = _energies(jnp.where(mask, samples, 0.0), mask, c)
    kept = mask_of(c.make().frame_count(lengths_of(mask)), energies.shape[1])
    return Frames(jnp.where(kept[..., None], _compressed(energies, kept, c), 0.0), kept)


def _energies(
    samples: Float[Array, "B N"], mask: Bool[AnyArray, "B N"] | None, c: LogMelConfig
) -> Float[Array, "B T M"]:
    """Mel energies before the logarithm."""
    if c.padding == "hop":
        reach = (c.n_fft - c.hop) // 2
        samples, mask = pad_reflected(samples, reach, reach, mask), None
    spectra = stft(samples, c.n_fft, c.hop, c.window_length, centre=c.padding == "centre", mask=mask)
    spectra = spectra[:, :-1] if c.padding == "centre" and c.drop_last else spectra
    energy = spectra.real**2 + spectra.imag**2
    return (energy if c.power == 2 else jnp.sqrt(energy + 1e-9)) @ c.make().filterbank(energy.dtype)


def _compressed(
    energies: Float[Array, "B T M"], kept: Bool[Array, "B T"] | None, c: LogMelConfig
) -> Float[Array, "B T M"]:
    floored = jnp.maximum(energies, c.floor)
    if c.compression == "ln":
        return jnp.log(floored)
    levels = jnp.log10(floored)
    if c.compression == "log10":
        return levels
    real = levels if kept is None else jnp.where(kept[..., None], levels, -jnp.inf)
    return (jnp.maximum(levels, real.max(axis=(1, 2), keepdims=True) - 8.0) + 4.0) / 4.0


def mel_filterbank(
    mels: int,
    n_fft: int,
    rate_hz: float | int,
    low_hz: float | int = 0.0,
    high_hz: float | int | None = None,
    scale: str = "slaney",
    dtype: Any = np.float32,
) -> Float[np.ndarray, "F M"]:
    """Triangular filters, F = n_fft // 2 + 1, for spectra on the left: `spectrum @ filters`.

    `slaney`: linear below 1 kHz, unit area (librosa's default, Whisper, HiFi-GAN). `htk`: 2595 log10(1 + f / 700),
    unit area. `kaldi`: unit height, straight in mels instead of Hz.
    """
    high_hz = rate_hz / 2 if high_hz is None else high_hz
    bins_hz = np.arange(n_fft // 2 + 1) * rate_hz / n_fft
    corners = np.linspace(hz_to_mel(low_hz, scale), hz_to_mel(high_hz, scale), mels + 2)
    if scale == "kaldi":
        axis, corners = hz_to_mel(bins_hz, scale), corners
    else:
        axis, corners = bins_hz, mel_to_hz(corners, scale)
    rising = (axis[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - axis[:, None]) / (corners[2:] - corners[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if scale != "kaldi":
        filters *= 2.0 / (corners[2:] - corners[:-2])
    return filters.astype(dtype)


def hz_to_mel(hz: Any, scale: str = "slaney") -> Any:
    """Mels of a frequency (Hz) on the `slaney`, `htk` or `kaldi` scale."""
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    if scale == "kaldi":
        return 1127.0 * np.log(1.0 + hz / 700.0)
    require(scale == "slaney", "mel scale", scale, "one of slaney, htk, kaldi")
    return np.where(hz < 1000.0, hz * 3 / 200, 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * 27 / np.log(6.4))


def mel_to_hz(mels: Any, scale: str = "slaney") -> Any:
    """Frequency (Hz) of mels; the inverse of `hz_to_mel`."""
    mels = np.asarray(mels, np.float64)
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    if scale == "kaldi":
        return 700.0 * np.expm1(mels / 1127.0)
    return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27))


def spectrum_from_mel(
    energies: Float[Array, "B T M"], filters: Float[AnyArray, "F M"], iterations: int = 100
) -> Float[Array, "B T F"]:
    """A non-negative spectrum whose mel energies are near `energies`, e.g. for Griffin-Lim.

    Multiplicative updates for non-negative least squares (Lee and Seung 2001) from a flat start.
    """
    filters = jnp.asarray(filters)
    pulled = energies @ filters.T
    spectrum = jnp.broadcast_to(energies.mean(-1, keepdims=True), pulled.shape) + 1e-8
    for _ in range(iterations):
        spectrum = spectrum * pulled / jnp.maximum(spectrum @ filters @ filters.T, 1e-12)
    return spectrum
