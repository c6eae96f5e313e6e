"""Buzzes with a pitch of three speakers, as a corpus without files."""

import numpy as np

from slm_jax.data.corpus import SPLITS
from slm_jax.training.stages import StageContext
from tests.golden.sounds import sound

SPEAKERS = {"train": ("low", "high", "low", "high", "low"), "dev": ("unheard",), "test": ("high",)}


class Voices:
    """Buzzes with a pitch; those of `high` are played faster."""

    def __init__(self, split: str) -> None:
        self.split, self.speakers = split, SPEAKERS[split]

    def __len__(self) -> int:
        return len(self.speakers)

    def __getitem__(self, index: int) -> dict:
        samples, speaker = sound(10 * SPLITS.index(self.split) + index), self.speakers[index]
        if speaker == "high":
            samples = np.interp(np.arange(0, len(samples) - 1, 1.5), np.arange(len(samples)), samples)
        return {"id": f"{self.split}{index}", "speaker": speaker, "samples": samples.astype(np.float32)}


class VoicesContext(StageContext):
    """Reads the voices instead of a corpus."""

    lengths = (24_000, 48_000)

    def source(self, split, kinds=None):
        return Voices(split)
