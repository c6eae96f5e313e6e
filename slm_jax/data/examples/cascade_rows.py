"""Stretches of speech as rows of one model of a cascade: units without repetitions, codes flattened."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.schemes.cascade import Cascade
from slm_jax.token_compression.dedup import dedup_row


class CascadeRowsConfig(Config):
    """A stretch of at most `frames` frames of codes, at random where there are more, as pass `number` has it.

    `frames` also measures what has no codes: 30 s of units are 1,500 frames of 50 Hz. An item has the columns that the
    two tokenizers name, of those books that the pass reads or writes; units frame by frame, for only so a stretch of
    time can be cut out.
    """

    cascade: Cascade
    number: int
    frames: int

    def __post_init__(self) -> None:
        passes, each = self.cascade.passes, self.cascade.frames_per_unit
        require(0 <= self.number < len(passes), "number", self.number, f"there are {len(passes)} passes")
        whole = self.frames >= 1 and self.frames % each == 0
        require(whole, "frames", self.frames, f"must be whole units of {each} frames each")
        chunk = passes[self.number].chunk
        fits = chunk is None or self.frames <= chunk
        require(fits, "frames", self.frames, f"a row of this pass is a chunk of at most {chunk}")

    @property
    def longest(self) -> int:
        """Ids of the longest row."""
        one, units = self.cascade.passes[self.number], self.cascade.units
        books = (*one.reads, *one.writes)
        most_units = self.frames // self.cascade.frames_per_unit + 1 if units in books else 0
        end = self.cascade.is_closed(self.number) and units not in one.writes
        return 1 + most_units + self.frames * sum(name != units for name in books) + end

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item to `ids` `[S]` int32, `mask` and `target_mask` `[S]`, all of the longest row's length.

        Targets are what the pass writes. Raises `UserError` for an item whose units and codes differ in time.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            ids, written = self.cascade.row(self.number, self.stretch(item, rng))
            missing = self.longest - len(ids)
            mask = np.arange(self.longest) < len(ids)
            return {"ids": np.pad(ids, (0, missing)), "mask": mask, "target_mask": np.pad(written, (0, missing))}

        return example

    def stretch(self, item: dict[str, Any], rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """The books of a stretch at random, or of the first one without `rng`."""
        cascade, each = self.cascade, self.cascade.frames_per_unit
        columns = self._columns()
        values = {name: np.asarray(item[column]) for name, column in columns.items()}
        counts = {len(found) for name, found in values.items() if name != cascade.units}
        units = len(values[cascade.units]) if cascade.units in values else None
        require(len(counts) <= 1, "frames of the books", sorted(counts), "must be as many in each")
        frames = counts.pop() if counts else (units or 0) * each
        frames = frames if units is None else cascade.common_frames(units, frames)
        last = max(0, frames - self.frames) // each
        start = 0 if rng is None else int(rng.integers(last + 1)) * each
        end = min(frames, start + self.frames)
        cut = {name: found[start:end].astype(np.int32) for name, found in values.items() if name != cascade.units}
        if units is not None:
            cut[cascade.units] = dedup_row(values[cascade.units][start // each : end // each])[0]
        return cut

    def _columns(self) -> dict[str, str]:
        """Book -> column, of what the pass reads or writes."""
        one, cascade = self.cascade.passes[self.number], self.cascade
        specs = (cascade.semantic, cascade.acoustic)
        of_all = {book.name: column for s in specs for book, column in zip(s.codebooks, s.columns, strict=True)}
        return {name: of_all[name] for name in (*one.reads, *one.writes)}
