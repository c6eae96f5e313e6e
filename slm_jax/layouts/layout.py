"""A layout as data: slots that hold a piece of text, a frame of speech, or both; and rows of steps made of them.

Who writes a layout says which text stands beside or before which frame. What a frame is made of is the scheme's
business (`schemes`): it says how many steps a frame takes, of which the first has the text.

A row is `[S, 1 + K]`, text in stream 0 and the scheme's entries beside it. With `size` text ids, id `size` of stream 0
is PAD and `size + 1` is WORD. A step with text and without any code is text alone; all others are the scheme's, in its
order.
"""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.layouts.said import Said

NOTHING, PAD, WORD = -1, -2, -3
"""In the place of a text id: nothing is asked here; there is no text; a word begins next (Moshi's EPAD)."""
MARKS = 2
"""Ids of stream 0 behind those of the text."""


class Slots(NamedTuple):
    """In the order in which they are read: a text id or what stands in its place, and the frame heard (-1: none)."""

    text: Int[np.ndarray, "Z"]
    frame: Int[np.ndarray, "Z"]

    @property
    def heard(self) -> Int[np.ndarray, "T"]:
        """The frames that a row holds, in their order."""
        return self.frame[self.frame >= 0]


class Layout(Config):
    """What tells one layout from another is its slots."""

    @abstractmethod
    def slots(self, said: Said, frames: int, rng: np.random.Generator) -> Slots:
        """Where the text of a recording of so many frames stands; `rng`: of layouts that draw."""

    @abstractmethod
    def longest(self, steps: int, frames: int, text: int) -> int:
        """Steps of the longest row that so many frames, which take so many steps, and so many text ids become."""


def merged(
    slots: Slots, size: int, codes: Int[np.ndarray, "_ K"], begins: Int[np.ndarray, "T"]
) -> Int[np.ndarray, "S K1"]:
    """A row of slots and of the scheme's steps of the frames that they hear, `EMPTY` where an entry holds nothing.

    `begins`: the step at which each of these frames begins. Raises `UserError` for ids that are no text.
    """
    outside = slots.text[(slots.text < WORD) | (slots.text >= size)]
    require(outside.size == 0, "text ids", outside[:5].tolist(), f"must lie in [0, {size})")
    marks = {PAD: size, WORD: size + 1, NOTHING: EMPTY}
    text = np.select([slots.text == mark for mark in marks], list(marks.values()), slots.text)
    heard, each = slots.frame >= 0, np.diff(begins, append=len(codes))
    lengths = np.ones(len(text), int)
    lengths[heard] = each
    first = np.cumsum(lengths) - lengths
    row = np.full((int(lengths.sum()), 1 + codes.shape[1]), EMPTY, np.int32)
    row[first, 0] = text
    row[np.repeat(heard, lengths), 1:] = codes
    return row


def parted(row: Int[np.ndarray, "S K1"], size: int) -> tuple[Int[np.ndarray, "L"], Int[np.ndarray, "_ K"]]:
    """The text ids of a row and the steps of its scheme: the inverse of `merged`, marks apart."""
    text = row[(row[:, 0] >= 0) & (row[:, 0] < size), 0]
    alone = (row[:, 0] != EMPTY) & (row[:, 1:] == EMPTY).all(1)
    return text, row[~alone, 1:]


def weights(row: Int[np.ndarray, "S K1"], size: int, padding: float) -> Float[np.ndarray, "S K1"]:
    """How much the loss counts each entry: `padding` where there is no text, 1 for text and codes, 0 for nothing."""
    found = (row != EMPTY).astype(np.float32)
    found[row[:, 0] >= size, 0] = padding
    return found
