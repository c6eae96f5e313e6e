"""Sequences of units as text for a language model."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class UnitTextConfig(Config):
    """Units with a start and an end token; targets are formed by the objective.

    `first_unit` is where units begin in the vocabulary. `pad_to`: fixed length; without it examples are ragged, for
    packing or buckets. `longest`: a longer sequence (start and end tokens counted) is cut to a random window, which
    keeps `bos` and `eos` only where the window reaches the ends; without it (and `pad_to`) nothing is ever cut.
    """

    units: str = "units"
    first_unit: int = 0
    bos: int | None = None
    eos: int | None = None
    longest: int | None = None
    pad_to: int | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.longest, self.pad_to) if limit is not None]
        require(all(limit > 1 for limit in limits), "longest, pad_to", limits, "at least 2: an id and its target")
        require(self.first_unit >= 0, "first_unit", self.first_unit, "at least 0")
        clash = [token for token in (self.bos, self.eos) if token is not None and token < 0]
        require(not clash, "bos, eos", clash, "token ids are at least 0")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `units` `[T]` to one example.

        Ragged: `ids` `[S]` int32. With `pad_to`: `ids` `[pad_to]` (0 where padded), `segment_ids` (1 = real),
        `positions`, `mask`: the same keys that packing and buckets give.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            ids = self._cut(self.sequence(item[self.units]), rng)
            return {"ids": ids} if self.pad_to is None else pad_ids(ids, self.pad_to)

        return example

    def sequence(self, units: np.ndarray) -> np.ndarray:
        """Ids of the language model, int32: units moved to their range, with `bos` and `eos`."""
        start = [] if self.bos is None else [self.bos]
        end = [] if self.eos is None else [self.eos]
        return np.concatenate([start, np.asarray(units) + self.first_unit, end]).astype(np.int32)

    def _cut(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        limit = min((limit for limit in (self.longest, self.pad_to) if limit is not None), default=len(ids))
        start = int(rng.integers(max(0, len(ids) - limit) + 1))
        return ids[start : start + limit]


def pad_ids(ids: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """One row of `length` with `segment_ids`, `positions` and `mask`."""
    mask = np.arange(length) < len(ids)
    positions = np.where(mask, np.arange(length), 0).astype(np.int32)
    padded = np.pad(ids, (0, length - len(ids)))
    return {"ids": padded, "segment_ids": mask.astype(np.int32), "positions": positions, "mask": mask}
