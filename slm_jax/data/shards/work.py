"""What is to be done shard by shard: a config, so that it travels to any worker as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from slm_jax.core.config import Config
from slm_jax.core.errors import require

Row = dict[str, Any]


class Left(NamedTuple):
    """An item of which no row came: which, why (a key of the work's `reasons`), and what exactly was seen."""

    item: str
    reason: str
    detail: str


class Job(NamedTuple):
    """One shard: its number in a table, and which items it is made of, `start` to `stop`."""

    table: str
    number: int
    start: int
    stop: int


class ShardWork(Config):
    """Items of several tables (the splits of a corpus) become rows, `per_shard` items a shard.

    What a shard holds follows from its items and this config alone: not from who makes it, nor from what else is made.
    `columns`: fields of rows that the index keeps beside them. `reasons`: why an item may be left out, with words.
    """

    per_shard: int = 256

    columns: ClassVar[tuple[str, ...]] = ("id",)
    reasons: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        require(self.per_shard >= 1, "per_shard", self.per_shard, "at least one item a shard")

    def check(self) -> None:
        """Raise `UserError` when what is read is not there."""

    def inputs(self) -> dict[str, Any]:
        """What of the things that are read decides what comes out, as JSON: other inputs are other work."""
        return {}

    def counts(self) -> dict[str, int]:
        """How many items each table is made of."""
        raise TypeError(f"{type(self).__name__} does not say what it reads")

    def rows(self, table: str, places: range) -> Iterator[Row | Left]:
        """What becomes of these items of a table, in their order."""
        raise TypeError(f"{type(self).__name__} does not say what it does")

    def extras(self) -> dict[str, Any]:
        """Files that lie beside the tables, by name, as JSON."""
        return {}


def jobs_of(work: ShardWork) -> list[Job]:
    """All shards of the work."""
    found: list[Job] = []
    for table, count in work.counts().items():
        starts = range(0, count, work.per_shard)
        found += [Job(table, i, start, min(start + work.per_shard, count)) for i, start in enumerate(starts)]
    return found
