"""Two sides of a conversation as rows: text and codes of the side that a model takes, codes of what it hears."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import ABSENT, EMPTY
from slm_jax.data.examples.text_code_rows import Row, TextCodeRowsConfig
from slm_jax.layouts.said import Said, heard_frames, said_of


class SideConfig(Config):
    """Which items a model of two sides learns from, and what it is given of them.

    `kinds`: of the corpus; None: all. `own`: the channel whose side it takes, whose words are its text. `hears`: the
    other side is there; without it the model has its own side alone (Moshi's first stage on speech). `speaks`: there
    are codes; without them a row is text alone, from the first step on. `ahead`: frames by which text may come before
    its speech, or after, drawn evenly for each row (Moshi: .6 s). `masked`: the share of the text that is read as if it
    were empty (Moshi: .3).
    """

    kinds: tuple[str, ...] | None = None
    own: int = 1
    hears: bool = True
    speaks: bool = True
    ahead: int = 0
    masked: float = 0.0

    def __post_init__(self) -> None:
        require(self.own in (0, 1), "own", self.own, "channel 0 or 1")
        require(self.ahead >= 0, "ahead", self.ahead, "frames, 0 or more")
        require(0 <= self.masked < 1, "masked", self.masked, "a share in [0, 1)")
        require(self.speaks or not self.ahead, "ahead", self.ahead, "text alone has no speech to be ahead of")


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
            row = spoken(item, rng) if self.side.speaks else self._written(item)
            hidden = np.zeros(row["ids"].shape, bool)
            hidden[:, 0] = rng.random(len(hidden)) < self.side.masked
            return row | {"hidden": hidden}

        return example

    def opening(self, item: dict[str, Any], rng: np.random.Generator) -> Row:
        """The steps with which an item begins, without padding; its text where that is all."""
        if self.side.speaks:
            return self.from_start(item, rng)
        row = self._written(item)
        return row["ids"][row["mask"]]

    def row(self, said: Said, codes: Int[np.ndarray, "T K"], rng: np.random.Generator) -> Row:
        """The steps of both sides; where nothing is heard the other's entries are `ABSENT`."""
        ahead = int(rng.integers(-self.side.ahead, self.side.ahead + 1))
        row = super().row(said.moved(-ahead, len(codes)) if ahead else said, codes, rng)
        if not self.side.hears:
            row[:, 1 + len(self.columns) // 2 :] = ABSENT
        return row

    def said(self, item: dict[str, Any]) -> Said:
        """The words of the own side, in frames."""
        turns = item.get("turns", ())
        spoken = np.asarray(item.get("word_turn", np.zeros(len(item["words"]), int)), int)
        channel = np.array([turn["channel"] for turn in turns] or [self.side.own], int)[spoken]
        start, end = (np.asarray(item[name], float) for name in ("word_start_s", "word_end_s"))
        own = np.flatnonzero(channel == self.side.own)
        own = own[np.argsort(start[own], kind="stable")]  # a remark is said while a turn goes on
        words = [np.asarray(self.tokenizer.encode(f" {item['words'][i]}"), np.int32) for i in own]
        return said_of(words, heard_frames(start[own], end[own], self.frames_per_second))

    def _written(self, item: dict[str, Any]) -> dict[str, np.ndarray]:
        """A row of text alone."""
        ids = np.full((self.steps, 1 + len(self.columns)), ABSENT, np.int32)
        ids[0] = EMPTY
        text = self.tokenizer.encode(f" {item['text']}")[: self.steps - 1]
        ids[1 : 1 + len(text), 0] = text
        mask = np.arange(self.steps) <= len(text)
        ids[~mask] = EMPTY
        return {"ids": ids, "target_weight": (ids >= 0).astype(np.float32), "mask": mask}
