"""Runs of units with what goes beside them (durations, log F0) as rows for models of several streams."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.schemes.delay import Delay
from slm_jax.sequence_models.grid import GridConfig

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids behind those of the units, in fairseq's order."""


class RunRowsConfig(Config):
    """`<s> units </s>` in stream 0, the other streams `shift` steps later, so that they are predicted given their unit.

    `columns`: of an item, one for each stream, `[N]` each, the units first. `units`: how many there are. `grids`: of
    each stream, None or the grid of its real numbers. A row is at most `length` steps long; of longer ones a stretch is
    taken at random. `hidden`: in which share of the rows each stream is not to be read, though it is a target;
    `hidden_runs`: in which share of stretches of `stretch` runs, beside that.
    """

    columns: tuple[str, ...]
    units: int
    length: int
    grids: tuple[GridConfig | None, ...] = ()
    shift: int = 1
    hidden: tuple[float, ...] = ()
    hidden_runs: tuple[float, ...] = ()
    stretch: int = 5

    def __post_init__(self) -> None:
        require(len(self.columns) >= 1, "columns", self.columns, "at least one, the units first")
        require(self.length >= 3, "length", self.length, "at least 3")
        require(self.shift in (0, 1), "shift", self.shift, "0 or 1: a row ends with the step of its end")
        require(self.stretch >= 1, "stretch", self.stretch, "at least 1")
        rule = f"a share in [0, 1) for each of the streams {self.columns}"
        for name in ("hidden", "hidden_runs"):
            shares = getattr(self, name)
            good = not shares or (len(shares) == len(self.columns) and min(shares) >= 0 and max(shares) < 1)
            require(good, name, shares, rule)

    @property
    def begin(self) -> int:
        """The id that opens a row."""
        return self.units + SPECIALS.index("<s>")

    @property
    def end(self) -> int:
        """The id that ends one."""
        return self.units + SPECIALS.index("</s>")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item to `ids` `[S, K]` int32, `mask` `[S]` and, where any is, what is `hidden` `[S, K]`."""

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            ids = self.sequence(self.entries(item))
            start = int(rng.integers(max(0, len(ids) - self.length) + 1))
            ids = ids[start : start + self.length]
            padded = np.pad(ids, ((0, self.length - len(ids)), (0, 0)), constant_values=EMPTY)
            row = {"ids": padded, "mask": np.arange(self.length) < len(ids)}
            return row | {"hidden": self._hidden(rng)} if self.hidden or self.hidden_runs else row

        return example

    def entries(self, item: dict[str, Any]) -> Int[np.ndarray, "N K"]:
        """Ids of all streams of an item."""
        named = zip(self.columns, self.grids or (None,) * len(self.columns), strict=True)
        found = [item[name] if grid is None else grid.ids(item[name]) for name, grid in named]
        return np.stack(found, axis=1).astype(np.int32)

    def sequence(self, entries: Int[np.ndarray, "N K"]) -> Int[np.ndarray, "S K"]:
        """The steps of these entries between both ends; nothing stands beside an end."""
        framed = np.full((len(entries) + 2, entries.shape[1]), EMPTY, np.int32)
        framed[1:-1], framed[0, 0], framed[-1, 0] = entries, self.begin, self.end
        ids, valid = self._scheme.arrange_row(framed)
        return np.where(valid, ids, EMPTY)[: len(framed)]

    def opening(self, entries: Int[np.ndarray, "N K"]) -> tuple[Int[np.ndarray, "S K"], Int[np.ndarray, "1 K"]]:
        """Steps that are known once so many runs are, and the next one, -1 where it is to be drawn."""
        steps = self.sequence(entries)
        following = np.full((1, entries.shape[1]), -1, np.int32)
        if self.shift:
            following[0, 1:] = steps[-1, 1:]
        return steps[:-1], following

    def continued(self, ids: Int[np.ndarray, "S K"]) -> Int[np.ndarray, "N K"]:
        """The new runs in the steps behind an opening, with or without an end; a run that is cut short is left out."""
        ended = np.flatnonzero(ids[:, 0] == self.end)
        count = int(ended[0]) if len(ended) else len(ids) - self.shift
        units, beside = ids[:count, :1], ids[self.shift : count + self.shift, 1:]
        return np.concatenate([units, beside], axis=1)

    @property
    def _scheme(self) -> Delay:
        return Delay(delays=(0, *(self.shift,) * (len(self.columns) - 1)))

    def _hidden(self, rng: np.random.Generator) -> Bool[np.ndarray, "S K"]:
        streams = len(self.columns)
        whole = rng.random(streams) < np.array(self.hidden or (0.0,) * streams)
        blocks = rng.random((-(-self.length // self.stretch), streams)) < np.array(self.hidden_runs or (0.0,) * streams)
        return whole | np.repeat(blocks, self.stretch, axis=0)[: self.length]
