"""Weighted mixtures in a config: of corpora, and of kinds of example.

    MixtureConfig(parts=(
        PartConfig(name="read", corpus="libri", weight=0.7),
        PartConfig(name="told", corpus="stories", weight=0.3),
    ))

On the command line: `--lm.mixture.parts.told.weight 0.5`.
"""

from collections.abc import Mapping
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.data.joined import Subset
from slm_jax.data.order import Source


class PartConfig(Config):
    """One part of a mixture.

    `weight`: its share of the examples, relative to the other parts. `corpus`: the corpus (of a
    `SeveralCorporaConfig`) that it reads, None for everything. `example`: how an item becomes an example; None for
    the stage's own way.
    """

    name: str
    weight: float
    corpus: str | None = None
    example: Config | None = None

    def __post_init__(self) -> None:
        require(bool(self.name), "name", self.name, "every part of a mixture needs one")
        require(self.weight > 0, f"weight of part {self.name!r}", self.weight, "weights are above 0")


class MixtureConfig(Config):
    """Parts that are interleaved in a fixed pattern with the shares that their weights say."""

    parts: tuple[PartConfig, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        require(bool(names), "parts", names, "a mixture needs at least one part")
        require(len(set(names)) == len(names), "parts", names, "every part needs a name of its own")

    def sources(self, table: Source, places: Mapping[str, range], kinds: bool = True) -> list[tuple[Source, float]]:
        """(source, weight) of each part, for `data.pipeline.make_batches`.

        `table` has a row for every item of a run's corpus, `places` says which rows are from which corpus of several
        (empty for a single one). Raises `UserError` for a corpus that is not there or has no row, and without `kinds`
        for a part with an `example` of its own.
        """
        for part in self.parts:
            plain = kinds or part.example is None
            require(plain, f"example of part {part.name!r}", part.example, "this stage has one kind of example only")
        return [(self._rows(part, table, places), part.weight) for part in self.parts]

    def _rows(self, part: PartConfig, table: Source, places: Mapping[str, range]) -> Source:
        if part.corpus is None:
            return table
        if part.corpus not in places:
            known = f"the run has {', '.join(places)}" if places else "the run has a single corpus without a name"
            raise UserError(f"corpus of part {part.name!r} is {part.corpus!r}: {known}{nearest(part.corpus, places)}")
        rows = places[part.corpus]
        require(bool(rows), f"corpus of part {part.name!r}", part.corpus, "it has no example in this split")
        return Subset(table, rows)


def of_corpus(source: Any, part: PartConfig) -> Any:
    """The items of the corpus that a part names; raises `UserError` for one that is not there."""
    if part.corpus is None:
        return source
    places = getattr(source, "places", {})
    known = f"the run has {', '.join(places) or 'a single corpus without a name'}"
    require(part.corpus in places, f"corpus of part {part.name!r}", part.corpus, known)
    return Subset(source, places[part.corpus])
