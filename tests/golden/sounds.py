"""Synthetic sounds with a pitch, as a folder of recordings: what the golden run was trained on.

python tests/golden/sounds.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ, COUNT = 16_000, 24


def sound(seed: int) -> np.ndarray:
    """One to two seconds of buzzes with changing pitch and colour, some noise between them."""
    rng = np.random.default_rng(seed)
    parts = [part(rng) for _ in range(int(rng.integers(6, 11)))]
    return (0.8 * np.concatenate(parts)).astype(np.float32)


def part(rng: np.random.Generator) -> np.ndarray:
    """A fifth of a second: a buzz, or noise."""
    time = np.arange(RATE_HZ // 5) / RATE_HZ
    shape = np.sin(np.pi * time / time[-1])
    if rng.random() < 0.25:
        return 0.1 * shape * rng.standard_normal(len(time))
    hz = rng.uniform(90, 220) * np.linspace(1, rng.uniform(0.8, 1.2), len(time))
    phase, colour = 2 * np.pi * np.cumsum(hz) / RATE_HZ, rng.uniform(0.5, 2.0)
    waves = [np.sin(k * phase) / k**colour for k in range(1, 12)]
    return 0.15 * shape * np.sum(waves, axis=0) + 0.002 * rng.standard_normal(len(time))


def write(folder: Path) -> None:
    """All sounds as FLAC; the same on every machine up to the last bit of a sine."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(COUNT):
        soundfile.write(folder / f"sound-{seed:02d}.flac", sound(seed), RATE_HZ)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
