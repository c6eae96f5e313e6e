"""Two sides of a conversation as rows: text and codes of the side that a model takes, codes of what it hears."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import ABSENT, EMPTY
from slm_jax.data.examples.text_code_rows import Row, TextCodeRowsConfig, timed
from slm_jax.layouts.said import Said


class SideConfig(Config):
    """Which items a model of two sides learns from, and what it is given of them.

    `kinds`: of the corpus; None: all. `own`: the channel whose side it takes. `parts`: what there is of a conversation:
    "both" sides, with the words of the own one; the "own" one alone (Moshi's first stage on speech); the "other" one
    alone, with its words, which is how somebody learns to hear before there is anything to answer; "text" alone, from
    the first step on. `late`: frames by which text comes behind its speech, drawn evenly between two numbers for each
    row (Moshi's first stage: .6 s before to .6 s after). `masked`: the share of the text that is read as if it were
    empty (Moshi: .3).
    """

    kinds: tuple[str, ...] | None = None
    own: int = 1
    parts: Literal["both", "own", "other", "text"] = "both"
    late: tuple[int, int] = (0, 0)
    masked: float = 0.0

    def __post_init__(self) -> None:
        require(self.own in (0, 1), "own", self.own, "channel 0 or 1")
        known = ("both", "own", "other", "text")
        require(self.parts in known, "parts", self.parts, f"one of {', '.join(known)}")
        require(self.late[0] <= self.late[1], "late", self.late, "the fewest frames and the most")
        require(0 <= self.masked < 1, "masked", self.masked, "a share in [0, 1)")

    @property
    def speaker(self) -> int:
        """The channel whose words are the text."""
        return 1 - self.own if self.parts == "other" else self.own


class DialogueRowsConfig(TextCodeRowsConfig):
    """Rows of one side: `columns` are the own books and then those of the other, as many."""

    side: SideConfig = SideConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.columns) % 2 == 0, "columns", self.columns, "as many of the own side as of the other")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """The same with `hidden` `[S, K1]`: entries that are read as if they were empty."""
        spoken = super().make()

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            row = self._written(item) if self.side.parts == "text" else spoken(item, rng)
            hidden = np.zeros(row["ids"].shape, bool)
            hidden[:, 0] = rng.random(len(hidden)) < self.side.masked
            return row | {"hidden": hidden}

        return example

    def opening(self, item: dict[str, Any], rng: np.random.Generator) -> Row:
        """The steps with which an item begins, without padding; its text where that is all."""
        if self.side.parts != "text":
            return self.from_start(item, rng)
        row = self._written(item)
        return row["ids"][row["mask"]]

    def row(self, said: Said, codes: Int[np.ndarray, "T K"], rng: np.random.Generator) -> Row:
        """The steps of both sides; entries of one that is not there are `ABSENT`."""
        late = int(rng.integers(self.side.late[0], self.side.late[1] + 1))
        row = super().row(said.moved(late, len(codes)) if late else said, codes, rng)
        return row if self.side.parts == "both" else without(row, self.side.parts == "other")

    def said(self, item: dict[str, Any]) -> Said:
        """The words that are the text, in frames."""
        return self.in_frames(timed(item).on(self.side.speaker))

    def _written(self, item: dict[str, Any]) -> dict[str, np.ndarray]:
        """A row of text alone."""
        ids = np.full((self.steps, 1 + len(self.columns)), ABSENT, np.int32)
        ids[0] = EMPTY
        text = self.tokenizer.encode(f" {item['text']}")[: self.steps - 1]
        ids[1 : 1 + len(text), 0] = text
        mask = np.arange(self.steps) <= len(text)
        ids[~mask] = EMPTY
        return {"ids": ids, "target_weight": (ids >= 0).astype(np.float32), "mask": mask}


def without(row: Row, own: bool = False) -> Row:
    """A row in which the other side (or the own one) is not there: `ABSENT` wherever there are codes."""
    found, books = row.copy(), (row.shape[1] - 1) // 2
    spoken = (row[:, 1:] != EMPTY).any(1)
    found[spoken, slice(1, 1 + books) if own else slice(1 + books, None)] = ABSENT
    return found
