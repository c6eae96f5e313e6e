"""Codes and what is said in them as rows of a layout and a scheme, for models of several streams."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.data.examples.code_rows import CodeRowsConfig
from slm_jax.data.word_times import TimedWords, words_of
from slm_jax.layouts.layout import MARKS, Layout, merged, parted, weights
from slm_jax.layouts.said import Said, heard_frames, said_of
from slm_jax.schemes.table import Scheme

Row = Int[np.ndarray, "S K1"]


class TextCodeRowsConfig(Config):
    """A stretch of at most `frames` frames, at random where there are more, and the words that begin in it.

    `columns`: of an item, one for each book, `[T]` each; its words have times (`data.word_times`).
    `tokens` makes ids of words, each with a space before it; a stretch ends before the word with which they would be
    more than `text`. `padding`: how much the loss counts an entry of the text stream that holds no text (Moshi: .5). A
    row begins with a step whose entries are all `EMPTY`.
    """

    columns: tuple[str, ...]
    scheme: Scheme
    layout: Layout
    tokens: Config
    frames: int
    frames_per_second: float
    text: int = 64
    padding: float = 0.5

    def __post_init__(self) -> None:
        require(self.text >= 1, "text", self.text, "ids of text in a row, at least 1")
        require(self.padding >= 0, "padding", self.padding, "0 or more")
        require(self.frames_per_second > 0, "frames_per_second", self.frames_per_second, "above 0")

    @property
    def codes(self) -> CodeRowsConfig:
        """The same without text."""
        return CodeRowsConfig(columns=self.columns, scheme=self.scheme, frames=self.frames)

    @property
    def steps(self) -> int:
        """Steps of the longest row, the first one counted."""
        return 1 + self.layout.longest(self.codes.steps - 1, self.frames, self.text)

    @cached_property
    def tokenizer(self) -> Any:
        """What makes ids of words."""
        return self.tokens.make()  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """Ids of the text stream, marks included."""
        return self.tokenizer.size + MARKS

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item to `ids` `[S, 1 + K]` int32, `target_weight` of the same shape and `mask` `[S]`."""

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            codes, said = self.codes.codes(item), self.said(item)
            start = int(rng.integers(max(0, len(codes) - self.frames) + 1))
            row = self.row(*self.stretch(said, codes, start), rng)
            ids = np.pad(row, ((0, self.steps - len(row)), (0, 0)), constant_values=EMPTY)
            counted = weights(ids, self.tokenizer.size, self.padding)
            return {"ids": ids, "target_weight": counted, "mask": np.arange(self.steps) < len(row)}

        return example

    def from_start(self, item: dict[str, Any], rng: np.random.Generator) -> Row:
        """The stretch with which an item begins."""
        return self.row(*self.stretch(self.said(item), self.codes.codes(item), 0), rng)

    def said(self, item: dict[str, Any]) -> Said:
        """The words of an item, in frames."""
        return self.in_frames(timed(item))

    def in_frames(self, said: TimedWords) -> Said:
        """Words as ids, and the frames in which they are heard."""
        words = [np.asarray(self.tokenizer.encode(f" {word}"), np.int32) for word in said.words]
        return said_of(words, heard_frames(said.start_s, said.end_s, self.frames_per_second))

    def stretch(self, said: Said, codes: Int[np.ndarray, "T K"], start: int) -> tuple[Said, Int[np.ndarray, "T2 K"]]:
        """What is said from a frame on, and its codes, as far as a row reaches."""
        last = min(start + self.frames, len(codes))
        cut = said.within(start, last)
        beyond = np.flatnonzero(cut.place[:, 1] > self.text)
        if len(beyond):
            last = start + int(cut.frames[beyond[0], 0])
            cut = said.within(start, last)
        return cut, codes[start:last]

    def row(self, said: Said, codes: Int[np.ndarray, "T K"], rng: np.random.Generator) -> Row:
        """The steps of text and codes, behind the first one. `rng`: of layouts that draw."""
        slots = self.layout.slots(said, len(codes), rng)
        heard = codes[slots.heard]
        steps = self.codes.sequence(heard)[1:]
        row = merged(slots, self.tokenizer.size, steps, self.scheme.begins(*heard.shape))
        return np.pad(row, ((1, 0), (0, 0)), constant_values=EMPTY)

    def content(self, row: Row) -> tuple[Int[np.ndarray, "L"], Int[np.ndarray, "T K"]]:
        """Text ids and codes of a row, the first step included: the inverse of `row`."""
        text, steps = parted(row[1:], self.tokenizer.size)
        return text, self.scheme.restore_row(steps)


def timed(item: dict[str, Any]) -> TimedWords:
    """The words of an item; raises `UserError` where nobody knows when they are said."""
    found = words_of(item)
    require(found is not None, f"words of item {item.get('id')!r}", None, "must be there, with the times of each")
    assert found is not None  # for the type checker
    return found
