"""Sources made of other sources: the same rows side by side, and a part of the rows."""

from collections.abc import Sequence
from typing import Any

from slm_jax.core.errors import require


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


class Subset:
    """Some rows of a source, in the order given."""

    def __init__(self, source: Any, indices: Sequence[int]) -> None:
        require(
            all(0 <= index < len(source) for index in indices), "indices", list(indices)[:8], f"0 to {len(source) - 1}"
        )
        self.source = source
        self.indices = tuple(int(index) for index in indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]]
