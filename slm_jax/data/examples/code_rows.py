"""Codes of several books as rows of a scheme, for models of several streams."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.schemes.table import Scheme


class CodeRowsConfig(Config):
    """A stretch of at most `frames` frames, at random where there are more, in the order of `scheme`.

    `columns`: of an item, one for each book, `[T]` each. A row begins with a step whose entries are all `EMPTY`, which
    stands in every place of the table that holds no code as well.
    """

    columns: tuple[str, ...]
    scheme: Scheme
    frames: int

    def __post_init__(self) -> None:
        require(len(self.columns) >= 1, "columns", self.columns, "at least one")
        require(self.frames >= 1, "frames", self.frames, "at least 1")
        self.scheme.table(self.frames, len(self.columns))  # a scheme of other books is refused here, not while training

    @property
    def steps(self) -> int:
        """Steps of the longest row, the first one counted."""
        return 1 + len(self.scheme.table(self.frames, len(self.columns)))

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item to `ids` `[S, K]` int32 and `mask` `[S]`, all of the longest row's length."""

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            codes = self.codes(item)
            start = int(rng.integers(max(0, len(codes) - self.frames) + 1))
            ids = self.sequence(codes[start : start + self.frames])
            missing = self.steps - len(ids)
            padded = np.pad(ids, ((0, missing), (0, 0)), constant_values=EMPTY)
            return {"ids": padded, "mask": np.arange(self.steps) < len(ids)}

        return example

    def codes(self, item: dict[str, Any]) -> Int[np.ndarray, "T K"]:
        """All codes of an item."""
        return np.stack([np.asarray(item[column]) for column in self.columns], axis=1).astype(np.int32)

    def sequence(self, codes: Int[np.ndarray, "T K"]) -> Int[np.ndarray, "S K"]:
        """The steps of these codes, behind the first one."""
        ids, valid = self.scheme.arrange_row(codes)
        ids = np.where(valid, ids, EMPTY)
        return np.concatenate([np.full((1, ids.shape[1]), EMPTY), ids]).astype(np.int32)
