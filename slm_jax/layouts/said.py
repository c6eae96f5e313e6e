"""What is said in a recording: ids of its text, and when each word is heard."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require

ROUNDING = 1e-6
"""Of a frame: 0.36 s are 18 frames of 20 ms, though not in binary."""


class Said(NamedTuple):
    """`ids` [L] of a text; of each word the `place` [W, 2] of its ids and the `frames` [W, 2] in which it is heard.

    Both are the first and one past the last. Words stand in the order of their ids, which is that of time.
    """

    ids: Int[np.ndarray, "L"]
    place: Int[np.ndarray, "W 2"]
    frames: Int[np.ndarray, "W 2"]

    def within(self, first: int, last: int) -> "Said":
        """The words that begin in the frames from `first` to before `last`, of a recording that is cut so."""
        chosen = np.flatnonzero((self.frames[:, 0] >= first) & (self.frames[:, 0] < last))
        words = [self.ids[slice(*self.place[word])] for word in chosen]
        return said_of(words, np.clip(self.frames[chosen] - first, 0, last - first))

    def moved(self, by: int, last: int) -> "Said":
        """Everything so many frames later, within the frames up to `last`."""
        return self._replace(frames=np.clip(self.frames + by, 0, last))


def said_of(words: Sequence[Int[np.ndarray, "_"]], frames: Int[np.ndarray, "W 2"]) -> Said:
    """Of the ids of every word and the frames in which it is heard.

    Raises `UserError` for words that end before they begin, or begin before the one in front of them does.
    """
    require(len(words) == len(frames), "frames", len(frames), f"a first and a last one for each of {len(words)} words")
    backwards = np.flatnonzero(frames[:, 1] < frames[:, 0])
    require(backwards.size == 0, "words", backwards[:5].tolist(), "must not end before they begin")
    early = np.flatnonzero(np.diff(frames[:, 0]) < 0) + 1
    require(early.size == 0, "words", early[:5].tolist(), "must begin in the order of the text")
    ends = np.cumsum([len(word) for word in words], dtype=int)
    ids = np.concatenate([np.zeros(0, np.int32), *words]).astype(np.int32)
    return Said(ids, np.stack([ends - np.diff(ends, prepend=0), ends], axis=1), frames)


def heard_frames(
    start_s: Float[np.ndarray, "W"], end_s: Float[np.ndarray, "W"], frames_per_second: float | int
) -> Int[np.ndarray, "W 2"]:
    """Frames in which words are heard, from seconds: the one in which it begins, one past that in which it ends."""
    first = np.floor(np.asarray(start_s) * frames_per_second + ROUNDING).astype(int)
    last = np.ceil(np.asarray(end_s) * frames_per_second - ROUNDING).astype(int)
    return np.stack([first, np.maximum(last, first + 1)], axis=1)
