"""Text and speech take turns in one sequence: the survey's fourth layout.

The steps of a frame's scheme stand where they stand without text, only that text is read in between: what a delay still
owes of the frames before it comes behind it.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.layouts.layout import PAD, Layout, Slots
from slm_jax.layouts.said import Said


class Interleaved(Layout):
    """What interleaved layouts share: text stands alone, and beside frames stands padding, which says that this is
    speech."""

    def longest(self, steps: int, frames: int, text: int) -> int:
        return steps + text


class ByRatio(Interleaved):
    """`text` ids, then `frames` of speech, and again; what is left of either follows (GLM-4-Voice, Zeng et al. 2024).

    None: all of it. `text` None is the whole text and then the whole speech, as in SpeechGPT's chain of modality
    (Zhang et al. 2023); both numbers are its special cases.
    """

    text: int | None = 13
    frames: int | None = 26

    def __post_init__(self) -> None:
        for name in ("text", "frames"):
            count = getattr(self, name)
            require(count is None or count > 0, name, count, "at least 1, or None for all")

    def slots(self, said: Said, frames: int, rng: np.random.Generator) -> Slots:
        text, frame = np.arange(len(said.ids)), np.arange(frames)
        turn = np.concatenate([_turns(text, self.text), _turns(frame, self.frames)])
        is_speech = np.repeat([False, True], [len(text), frames])
        order = np.lexsort((is_speech, turn))
        written = np.concatenate([said.ids, np.full(frames, PAD)])[order]
        heard = np.concatenate([np.full(len(text), -1), frame])[order]
        return Slots(written, heard)


def _turns(places: Int[np.ndarray, "_"], each: int | None) -> Int[np.ndarray, "_"]:
    return np.zeros(len(places), int) if each is None else places // each


class WordSpans(Interleaved):
    """Some words are read, the others heard, in spans that begin and end with a word (SpiRit-LM, Nguyen et al. 2024).

    Spans are of 1 to `longest_span` words, drawn at random, and take turns; which comes first is drawn. What is heard
    of a span reaches from its first word to where the next one begins, pauses included. A row holds the text of some
    words and the frames of the others.
    """

    longest_span: int = 8

    def __post_init__(self) -> None:
        require(self.longest_span > 0, "longest_span", self.longest_span, "at least one word")

    def slots(self, said: Said, frames: int, rng: np.random.Generator) -> Slots:
        words, speaks = len(said.place), int(rng.integers(2))
        if not words:
            return _heard(0, frames)
        begins = [0, *said.frames[1:, 0].tolist(), frames]
        spans = pairwise(self._bounds(words, rng))
        parts = [
            _heard(begins[first], begins[last]) if (number + speaks) % 2 else _read(said, first, last)
            for number, (first, last) in enumerate(spans)
        ]
        return Slots(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _bounds(self, words: int, rng: np.random.Generator) -> Iterator[int]:
        """The words at which spans begin, and one past the last word."""
        first = 0
        while first < words:
            yield first
            first += int(rng.integers(1, self.longest_span + 1))
        yield words


def _heard(first: int, last: int) -> Slots:
    frame = np.arange(first, last)
    return Slots(np.full(len(frame), PAD), frame)


def _read(said: Said, first: int, last: int) -> Slots:
    ids = said.ids[said.place[first, 0] : said.place[last - 1, 1]]
    return Slots(ids.astype(int), np.full(len(ids), -1))
