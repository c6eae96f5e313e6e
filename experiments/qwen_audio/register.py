"""How well a register can be told of an unknown voice: the best thresholds on what the world knows of its speakers.

    python experiments/qwen_audio/register.py

Each of the forty-eight voices speaks low, normal and high once. By pitch alone, and by a line in pitch and formants.
"""

import numpy as np

from slm_jax.data.corpora.world_manner import REGISTERS
from slm_jax.data.corpora.world_voice import make_speakers

SPEAKERS, SEED = 48, 0


def told_apart(score: np.ndarray, label: np.ndarray) -> float:
    """The share that two thresholds on a score get right, the best of all pairs."""
    places = np.sort(score)
    found = [np.mean((score > low).astype(int) + (score > high) == label) for low in places for high in places]
    return float(max(found))


def main() -> None:
    """Print both shares."""
    speakers = make_speakers(SPEAKERS, SEED)
    label = np.tile(np.arange(len(REGISTERS)), SPEAKERS)
    factor = np.log(list(REGISTERS.values()))
    pitch = (np.log([one.pitch for one in speakers])[:, None] + factor).ravel()
    formant = np.repeat(np.log([one.formant for one in speakers]), len(REGISTERS))
    known = np.stack([pitch, formant, np.ones_like(pitch)], axis=1)
    line = known @ np.linalg.lstsq(known, label, rcond=None)[0]
    print(f"by pitch: {told_apart(pitch, label):.2f}; by pitch and formants: {told_apart(line, label):.2f}")


if __name__ == "__main__":
    main()
