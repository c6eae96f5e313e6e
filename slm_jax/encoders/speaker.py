"""GE2E: whose voice speaks, as one vector (Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification").

    embed = SpeakerEmbedder(config, params)
    embed([prompt, continuation])                           # [2, E], of length 1: their product is the cosine

Shape and front end are those of the Resemblyzer package, whose weights are the ones in the open. Its detector of voice
(webrtcvad), which takes out long silences first, is left aside: a clip that is mostly silence gets another vector.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.audio.mel import mel_filterbank
from slm_jax.audio.stft import stft
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.linear import Linear
from slm_jax.nn.lstm import LSTM

RATE_HZ, WINDOW, HOP = 16_000, 400, 160
"""25 ms every 10 ms."""
FRAMES_PER_S = RATE_HZ // HOP
SMALLEST = 1e-12


class SpeakerEncoderConfig(Config):
    """Shape of the encoder, and how it hears a clip; the defaults are those of the released weights.

    A clip is heard in stretches of `frames` frames of 10 ms, `stretches_per_s` of which begin in a second; the last
    one, filled with silence, counts when at least `coverage` of it is sound. Clips below `loudness_dbfs` (RMS, dB of
    full scale) are raised to it first, louder ones are left.
    """

    mels: int = 40
    width: int = 256
    layers: int = 3
    embedding: int = 256
    frames: int = 160
    stretches_per_s: float = 1.3
    coverage: float = 0.75
    loudness_dbfs: float = -30.0

    def __post_init__(self) -> None:
        for name in ("mels", "width", "layers", "embedding", "frames"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        least = FRAMES_PER_S / self.frames
        near = least <= self.stretches_per_s <= FRAMES_PER_S
        require(near, "stretches_per_s", self.stretches_per_s, f"{least} (no gaps) to {FRAMES_PER_S}")
        require(0 < self.coverage <= 1, "coverage", self.coverage, "a share lies in (0, 1]")
        require(math.isfinite(self.loudness_dbfs), "loudness_dbfs", self.loudness_dbfs, "must be finite")

    def make(self) -> "SpeakerEncoder":
        """The module."""
        return SpeakerEncoder(self)

    @property
    def step(self) -> int:
        """Samples from one stretch to the next."""
        return HOP * round(FRAMES_PER_S / self.stretches_per_s)

    @property
    def reach(self) -> int:
        """Samples that the windows of one stretch cover."""
        return HOP * (self.frames - 1) + WINDOW

    def starts(self, samples: int) -> list[int]:
        """The first samples of the stretches of a clip; one that is shorter than a stretch has one."""
        frames, stretch = samples // HOP + 1, HOP * self.frames
        last = HOP * max(0, frames - self.frames + self.step // HOP)
        starts = list(range(0, last + 1, self.step))
        dropped = len(starts) > 1 and (samples - starts[-1]) / stretch < self.coverage
        return starts[:-1] if dropped else starts


class SpeakerEncoder(nn.Module):
    """Mel energies to one vector of length 1 per row: an LSTM, whose last output is projected and rectified."""

    config: SpeakerEncoderConfig

    @nn.compact
    def __call__(self, frames: Frames) -> Float[Array, "B E"]:
        """What a row of right-padded energies (`mel_energies`) gives does not depend on its padding."""
        c = self.config
        lstm = LSTM(c.width, c.layers, name="lstm")
        _, (said, _) = lstm.step(frames, lstm.initial_state(frames.values.shape[0]))
        vectors = nn.relu(Linear(c.embedding, out_names=("embed",), name="projection")(said[-1]))
        return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), SMALLEST)


def mel_energies(samples: Float[Array, "B N"], mels: int) -> Float[Array, "B T M"]:
    """Energies of frames that lie within the samples, without a logarithm: T = (N - 400) // 160 + 1."""
    spectra = stft(samples, WINDOW, HOP, centre=False)
    return (spectra.real**2 + spectra.imag**2) @ mel_filterbank(mels, WINDOW, RATE_HZ)


class SpeakerEmbedder:
    """Clips of any length at 16 kHz to vectors of length 1, up to `rows` stretches at once.

    A clip's vector does not depend on the clips beside it. Counts of rows are powers of two: few programs are compiled.
    """

    def __init__(self, config: SpeakerEncoderConfig, params: Any, rows: int = 32) -> None:
        require(rows >= 1, "rows", rows, "must be at least 1")
        self.config, self.params, self.rows = config, params, rows
        self.model = config.make()

    def __call__(self, clips: Sequence[np.ndarray]) -> Float[np.ndarray, "C E"]:
        """A vector for each clip `[N]`; raises `UserError` for one that is no row of samples."""
        for clip in clips:
            require(
                clip.ndim == 1 and len(clip) > 0, "shape of a clip", clip.shape, "must be [N] with a sample at least"
            )
        places = [(index, start) for index, clip in enumerate(clips) for start in self.config.starts(len(clip))]
        sums = np.zeros((len(clips), self.config.embedding), np.float32)
        loud = [raised(clip, self.config.loudness_dbfs) for clip in clips]
        for first in range(0, len(places), self.rows):
            some = places[first : first + self.rows]
            windows = np.stack([_window(loud[index], start, self.config.reach) for index, start in some])
            np.add.at(sums, [index for index, _ in some], self._embedded(windows))
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), SMALLEST)

    def _embedded(self, windows: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B E"]:
        """Filled with silent rows."""
        count = 1 << (len(windows) - 1).bit_length()
        filled = np.pad(windows, ((0, count - len(windows)), (0, 0)))
        return np.asarray(_of_windows(self.model, self.params, filled))[: len(windows)]


def raised(samples: Float[np.ndarray, "N"], dbfs: float) -> Float[np.ndarray, "N"]:
    """The samples as loud as `dbfs` (RMS) where they are softer; silence stays as it is."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    gain = 10 ** (dbfs / 20) / rms if rms > 0 else 1.0
    return np.asarray(samples * max(gain, 1.0), np.float32)


def _window(samples: Float[np.ndarray, "N"], start: int, reach: int) -> Float[np.ndarray, "W"]:
    """What the frames of a stretch cover: the first is centred on its start, and around the clip lies silence."""
    begin = start - WINDOW // 2
    cut = samples[max(begin, 0) : begin + reach]
    before = max(-begin, 0)
    return np.pad(cut, (before, reach - before - len(cut)))


@partial(jax.jit, static_argnums=0)
def _of_windows(model: SpeakerEncoder, params: Any, windows: Float[Array, "B N"]) -> Float[Array, "B E"]:
    energies = mel_energies(windows, model.config.mels)
    return model.apply({"params": params}, Frames(energies, jnp.ones(energies.shape[:2], bool)))  # type: ignore[return-value]
