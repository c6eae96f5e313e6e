"""Phones of the world's voice and their times, from the symbols and durations of its model."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

SILENCE = "sil"
PHONES = (SILENCE, *"AIOTWYabdefhijklmnopstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒʔʤʧθᵊᵻ")
"""The inventory, fixed: a phone's id is its place here. Capital letters are diphthongs (A as in day) and the flap T."""
PHONE_IDS = {phone: i for i, phone in enumerate(PHONES)}

STEP_S = 0.025
"""One duration step of the model, seconds (600 samples at 24 kHz)."""
OFFSET_S = 0.055
"""The audio runs ahead of the model's durations by this much, seconds.

Calibrated by clusters of MFCCs, whose agreement with the phones is flat between 0.050 and 0.0625 s and falls on both
sides; `tests/data/test_world_alignment.py` measures it again.
"""
STRESS, LENGTH, SPACE, PAUSES = "ˈˌ", "ː", " ", ';:,.!?—…"()“”'


@dataclasses.dataclass(frozen=True)
class Phones:
    """Phones of one stretch of speech; `word` is the index of the word that a phone belongs to, -1 for silence."""

    ids: Int[np.ndarray, "P"]
    start_s: Float[np.ndarray, "P"]
    end_s: Float[np.ndarray, "P"]
    word: Int[np.ndarray, "P"]


def align(symbols: str, steps: Int[np.ndarray, "L"], total_s: float, offset_s: float = OFFSET_S) -> Phones:
    """Phones with times (seconds) from the model's symbols and their durations in steps.

    `steps` has one entry more than `symbols` at either end, for the model's padding. A stress mark belongs to the
    symbol after it, a length mark to the one before; a space is no pause, so its time is shared by its neighbours.
    Punctuation and padding are silence. Times are moved by `offset_s` and end at `total_s`.
    """
    names, ends, word = _segments(symbols, np.asarray(steps, np.float64))
    end_s = np.clip(np.asarray(ends) * STEP_S - offset_s, 0.0, total_s)
    end_s[-1] = total_s
    start_s = np.concatenate([[0.0], end_s[:-1]])
    real = end_s > start_s
    ids = np.asarray([PHONE_IDS[name] for name in names], np.int32)
    return Phones(ids[real], start_s[real].astype(np.float32), end_s[real].astype(np.float32), np.asarray(word)[real])


def _segments(symbols: str, steps: np.ndarray) -> tuple[list[str], list[float], list[int]]:
    """Phone names, the steps at which they end, and their words; neighbouring silences are one."""
    names, ends, words = [SILENCE], [steps[0]], [-1]
    word, now = 0, steps[0]
    for symbol, length in zip(symbols, steps[1:-1], strict=True):
        now += length
        if symbol == SPACE:
            word += 1
            ends[-1] += length / 2
        elif symbol == LENGTH:
            ends[-1] = now
        elif symbol not in STRESS:
            name = SILENCE if symbol in PAUSES else symbol
            if name == SILENCE == names[-1]:
                ends[-1] = now
                continue
            names.append(name)
            ends.append(now)
            words.append(-1 if name == SILENCE else word)
    if names[-1] != SILENCE:
        names, ends, words = [*names, SILENCE], [*ends, now], [*words, -1]
    ends[-1] = now + steps[-1]
    return names, ends, words


def word_times(phones: Phones, words: int) -> tuple[Float[np.ndarray, "W"], Float[np.ndarray, "W"]]:
    """Start and end of every word (seconds): from its first phone to its last."""
    rows = [np.flatnonzero(phones.word == w) for w in range(words)]
    start_s = np.asarray([phones.start_s[row[0]] for row in rows], np.float32)
    return start_s, np.asarray([phones.end_s[row[-1]] for row in rows], np.float32)
