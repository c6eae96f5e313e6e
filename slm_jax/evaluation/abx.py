"""ABX discrimination of phones in triphone context (Schatz 2016), in the form of Libri-Light and ZeroSpeech.

A and X are the same phone between the same neighbours, B is another phone between them: is X nearer to A? Within: all
three from one speaker. Across: X from another one. Chance is 0.5, and ties count one half.

    items = abx_items.read_items("dev-clean.item")           # or triphones(...) from label spans
    scores = abx({"6295-64301-0010": frames}, items, rate_hz=50)

An error is first averaged over contexts (across: and over speakers of X), then over speakers, then over ordered pairs
of phones, so that a frequent context weighs no more than a rare one.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.evaluation.abx_items import Item, frames_of
from slm_jax.evaluation.dtw import DISTANCES, pair_distances


class ABXConfig(Config):
    """How items are compared.

    `distance`: of frames, one of `dtw.DISTANCES`. `group`: items of one phone, context and speaker at most; `speakers`:
    other speakers that X comes from at most; what is above is drawn by `seed`. The defaults are ZeroSpeech's.
    """

    distance: str = "angular"
    group: int = 10
    speakers: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.distance in DISTANCES, "distance", self.distance, f"must be one of {', '.join(DISTANCES)}")
        require(self.group >= 2, "group", self.group, "at least 2: A and X are different items")
        require(self.speakers >= 1, "speakers", self.speakers, "at least 1")


@dataclasses.dataclass(frozen=True)
class ABXScores:
    """Error rates, None where no triplet can be made; how many triplets they stand on, and pairs that were compared.

    `items`: with a frame at least.
    """

    within: float | None
    across: float | None
    triplets_within: int
    triplets_across: int
    pairs: int
    items: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


class Cell(NamedTuple):
    """What is averaged last to first: phones, the speaker of A and B, then the rest; and places of the items."""

    phones: tuple[str, str]
    speaker: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    x: tuple[int, ...]


def abx(
    features: Mapping[str, Float[np.ndarray, "_ D"]],
    items: Sequence[Item],
    rate_hz: float | int,
    config: ABXConfig = ABXConfig(),
) -> ABXScores:
    """Errors of `features`: the frames of each file at `rate_hz` (Hz).

    Items of other files, and those shorter than a frame, are left out.
    """
    cut = [(item, frames_of(item, features[item.file], rate_hz)) for item in items if item.file in features]
    kept = [(item, frames) for item, frames in cut if len(frames)]
    groups = _groups([item for item, _ in kept], config)
    within, across = list(_within(groups)), list(_across(groups, config))
    pairs = np.array(sorted({pair for cell in (*within, *across) for pair in _pairs(cell)}), np.int64)
    pairs = pairs.reshape(-1, 2)
    found = pair_distances([frames for _, frames in kept], pairs, config.distance)
    known = {tuple(pair): value for pair, value in zip(pairs.tolist(), found.tolist(), strict=True)}
    return ABXScores(
        within=_averaged(within, known),
        across=_averaged(across, known),
        triplets_within=sum(_triplets(cell) for cell in within),
        triplets_across=sum(_triplets(cell) for cell in across),
        pairs=len(pairs),
        items=len(kept),
    )


Group = tuple[int, ...]
Groups = dict[tuple[str, str], dict[str, dict[str, Group]]]
"""Context -> speaker -> phone -> places of items."""


def _groups(items: Sequence[Item], config: ABXConfig) -> Groups:
    rng = np.random.default_rng(config.seed)
    places: defaultdict[tuple, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.context, item.speaker, item.phone].append(place)
    groups: Groups = {}
    for (context, speaker, phone), group in sorted(places.items()):
        kept = sorted(rng.permutation(group)[: config.group].tolist())
        groups.setdefault(context, {}).setdefault(speaker, {})[phone] = tuple(kept)
    return groups


def _within(groups: Groups) -> Iterator[Cell]:
    """X is another item of A's own group."""
    for speakers in groups.values():
        for speaker, phones in speakers.items():
            for a, b in _ordered(phones):
                if len(phones[a]) > 1:
                    yield Cell((a, b), speaker, phones[a], phones[b], phones[a])


def _across(groups: Groups, config: ABXConfig) -> Iterator[Cell]:
    """X is an item of another speaker."""
    rng = np.random.default_rng(config.seed)
    for speakers in groups.values():
        for speaker, phones in speakers.items():
            chosen: dict[str, list[str]] = {}
            for a, b in _ordered(phones):
                if a not in chosen:
                    others = [one for one, own in speakers.items() if one != speaker and a in own]
                    chosen[a] = [others[k] for k in rng.permutation(len(others))[: config.speakers]]
                for other in chosen[a]:
                    yield Cell((a, b), speaker, phones[a], phones[b], speakers[other][a])


def _ordered(phones: Iterable[str]) -> list[tuple[str, str]]:
    return [(a, b) for a in phones for b in phones if a != b]


def _pairs(cell: Cell) -> Iterator[tuple[int, int]]:
    """What must be known: X beside A, where they are of one group from the earlier to the later, and X beside B.

    It matters which comes first: where paths cost the same, the length of the one that is taken differs.
    """
    for x in cell.x:
        yield from (_to_a(cell, x, a) for a in cell.a if a != x)
        yield from ((x, b) for b in cell.b)


def _to_a(cell: Cell, x: int, a: int) -> tuple[int, int]:
    return (min(x, a), max(x, a)) if cell.a == cell.x else (x, a)


def _triplets(cell: Cell) -> int:
    return sum((len(cell.a) - (x in cell.a)) * len(cell.b) for x in cell.x)


def _error(cell: Cell, known: Mapping[tuple[int, ...], float]) -> float:
    """How often X is nearer to B than to A, ties as one half."""
    wrong = 0.0
    for x in cell.x:
        to_a = np.array([known[_to_a(cell, x, a)] for a in cell.a if a != x])[:, None]
        to_b = np.array([known[x, b] for b in cell.b])[None]
        wrong += float((to_b < to_a).sum() + 0.5 * (to_a == to_b).sum())
    return wrong / _triplets(cell)


def _averaged(cells: Sequence[Cell], known: Mapping[tuple[int, ...], float]) -> float | None:
    """Over cells of one speaker and pair of phones, over speakers, over pairs of phones."""
    errors: defaultdict[tuple[str, str], defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        errors[cell.phones][cell.speaker].append(_error(cell, known))
    by_phones = [np.mean([np.mean(own) for own in speakers.values()]) for speakers in errors.values()]
    return float(np.mean(by_phones)) if by_phones else None
