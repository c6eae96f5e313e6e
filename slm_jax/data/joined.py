"""Sources made of other sources: the same rows side by side, a part of the rows, corpora end to end."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.messages import Turn


class Joined:
    """Row i of several sources as one dict; later sources add fields to those of earlier ones.

    Every source has an `id` per row, and the ids of a row must agree: units that were made from another corpus are
    refused instead of being paired with the wrong speech.
    """

    def __init__(self, *sources: Any) -> None:
        lengths = [len(source) for source in sources]
        require(len(set(lengths)) == 1, "lengths of joined sources", lengths, "they must have the same rows")
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = [source[index] for source in self.sources]
        ids = {row["id"] for row in rows}
        require(len(ids) == 1, f"ids of row {index}", sorted(ids), "joined sources must hold the same examples")
        return {name: value for row in rows for name, value in row.items()}


class Picked:
    """Some fields of a source under names of their own (`fields`: name here -> name there), and the `id`."""

    def __init__(self, source: Any, fields: Mapping[str, str]) -> None:
        self.source, self.fields = source, dict(fields)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.source[index]
        return {"id": row["id"], **{name: row[field] for name, field in self.fields.items()}}


class Subset:
    """Some rows of a source, in the order given."""

    def __init__(self, source: Any, indices: Sequence[int]) -> None:
        lowest, highest = min(indices, default=0), max(indices, default=-1)
        inside = lowest >= 0 and highest < len(source)
        require(inside, "indices", f"{lowest} to {highest}", f"0 to {len(source) - 1}")
        self.source = source
        self.indices = indices if isinstance(indices, range) else tuple(int(index) for index in indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]]


class EndToEnd:
    """Several corpora as one, the items of each after those of the one before.

    An item keeps the fields that all corpora have. `id` and `speaker`, those in `messages` too, get the corpus' name in
    front, so that two corpora share none, and `corpus` holds it. `places`: which items are from which corpus.
    """

    def __init__(self, corpora: Mapping[str, Any]) -> None:
        self.corpora = dict(corpora)
        ends = [0, *accumulate(len(source) for source in self.corpora.values())]
        self.places = {name: range(*bounds) for name, bounds in zip(self.corpora, pairwise(ends), strict=True)}

    def __len__(self) -> int:
        return sum(len(source) for source in self.corpora.values())

    def __getitem__(self, index: int) -> dict[str, Any]:
        for name, places in self.places.items():
            if int(index) in places:
                item = self.corpora[name][index - places.start]
                kept = {field: item[field] for field in item if field in self._fields}
                own: dict[str, Any] = {field: f"{name}/{item[field]}" for field in ("id", "speaker") if field in item}
                if "messages" in item:
                    own["messages"] = tuple(_of_corpus(turn, name) for turn in item["messages"])
                return {**kept, **own, "corpus": name}
        raise IndexError(f"item {index} of {len(self)}")

    def first(self, count: int) -> "EndToEnd":
        """The first items of each corpus."""
        return EndToEnd({name: Subset(c, range(min(count, len(c)))) for name, c in self.corpora.items()})

    @property
    def ids(self) -> list[str]:
        """The ids of all items, without reading them."""
        return [f"{name}/{one}" for name, source in self.corpora.items() for one in source.ids]

    @property
    def speakers(self) -> list[str]:
        """The speakers of all items, without reading them."""
        return [f"{name}/{one}" for name, source in self.corpora.items() for one in source.speakers]

    @property
    def kinds(self) -> list[str]:
        """The kinds of all items, without reading them."""
        return list(chain.from_iterable(source.kinds for source in self.corpora.values()))

    @property
    def seconds(self) -> np.ndarray:
        """The lengths of all items, without reading them."""
        return np.concatenate([source.seconds for source in self.corpora.values()])

    @cached_property
    def _fields(self) -> frozenset[str]:
        firsts = [frozenset(source[0]) for source in self.corpora.values() if len(source)]
        return frozenset.intersection(*firsts)


def _of_corpus(turn: Turn, name: str) -> Turn:
    return dataclasses.replace(turn, speaker=f"{name}/{turn.speaker}") if turn.speaker else turn
