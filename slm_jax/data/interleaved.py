"""Whole pipelines in one run: batches of several kinds, each with its own arrays and shapes, in a fixed pattern.

A mixture inside one pipeline (`data.mixture`) puts examples of several sources into one batch, which therefore must
have equal arrays. Here every batch is of one kind (text alone, speech with text), and the training step is compiled
once for each. An objective sees the kind by the keys of the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.data.pipeline import Batches


class Interleaved:
    """An endless iterator over the batches of several pipelines (`core.contracts.BatchIterator`).

    `parts`: (pipeline, weight) by name; a weight is the share of the batches. Which kind comes when depends on the
    number of the batch alone, so that all hosts agree and a run goes on where it was. `example` counts through the
    examples of all parts, laid end to end.
    """

    def __init__(self, parts: Mapping[str, tuple[Batches, float]]) -> None:
        require(bool(parts), "parts", sorted(parts), "at least one pipeline")
        for name, (_, weight) in parts.items():
            require(weight > 0, f"weight of part {name!r}", weight, "weights are above 0")
        self._parts = {name: batches for name, (batches, _) in parts.items()}
        self._weights = {name: float(weight) for name, (_, weight) in parts.items()}
        self._taken = dict.fromkeys(parts, 0)
        starts = np.cumsum([0, *(batches.examples for batches in self._parts.values())])
        self._starts = dict(zip(parts, starts.tolist(), strict=False))

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        name = next_kind(list(self._taken.values()), list(self._weights.values()))
        kind = list(self._parts)[name]
        batch = next(self._parts[kind])
        self._taken[kind] += 1
        return {**batch, "example": batch["example"] + self._starts[kind]}

    def get_state(self) -> dict[str, Any]:
        """Small JSON: the weights, how many batches of each kind were handed out, and the state of each pipeline."""
        states = {name: batches.get_state() for name, batches in self._parts.items()}
        return {"order": {"weights": self._weights}, "taken": dict(self._taken), "parts": states}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken; raises `UserError` where it is that of other parts or weights."""
        saved = state.get("order", {}).get("weights")
        require(saved == self._weights, "data state: weights", saved, f"this run has {self._weights!r}")
        for name, batches in self._parts.items():
            batches.set_state(state["parts"][name])
            self._taken[name] = state["taken"][name]

    def close(self) -> None:
        """Stop the reading threads of all parts."""
        for batches in self._parts.values():
            batches.close()


def next_kind(taken: Sequence[int], weights: Sequence[float]) -> int:
    """The kind that lies furthest behind its share, the first of several: no kind is ever a whole batch ahead."""
    number, total = sum(taken) + 1, sum(weights)
    behind = [weight * number / total - count for count, weight in zip(taken, weights, strict=True)]
    return int(np.argmax(behind))
