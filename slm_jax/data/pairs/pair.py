"""One pair of clips, a right one and a wrong one, whatever it is made of."""

import dataclasses
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from slm_jax.audio.files import read_audio


@runtime_checkable
class Clip(Protocol):
    """Speech that is read, or spoken, when it is wanted."""

    def samples(self, rate_hz: int) -> Float[np.ndarray, "N"]:
        """float32 in [-1, 1] at `rate_hz` (Hz)."""
        ...


@dataclasses.dataclass(frozen=True)
class FileClip:
    """An audio file."""

    path: Path

    def samples(self, rate_hz: int) -> Float[np.ndarray, "N"]:
        """Its samples, channels averaged, resampled where the file has another rate; raises `AudioError`."""
        return read_audio(self.path, rate_hz=rate_hz)


@dataclasses.dataclass(frozen=True)
class SpeechPair:
    """A right clip and a wrong one.

    `test`: which benchmark and part, such as `sWUGGY dev`. `id` is its own within the test; pairs of one `item`, such
    as a word in several voices, are counted once by their mean. `group`: the part of the test that it is reported in.
    """

    test: str
    id: str
    item: str
    group: str
    positive: Clip
    negative: Clip
