"""How much utterances repeat themselves and each other: auto-BLEU, self-BLEU, VERT (Lakhotia et al. 2021, section 4.2).

Tokens are words or units. All figures lie in 0..1, where papers often print percent; what never repeats itself scores
0, and so does noise: they are read beside a measure of sense, such as GenPPL, and beside those of real speech.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.evaluation.intervals import Interval, bootstrap_interval

Tokens = Sequence[Hashable] | np.ndarray
"""The L words or units of one utterance."""
ORDERS = (1, 2)
"""The n-grams that GSLM counts, with equal weights."""


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Means over a set of utterances, None where no utterance has what is counted.

    `auto_bleu`: of GSLM, `auto_bleu_interval` (95 %, bootstrap over utterances) beside it; `repeated_bigrams`: the
    form of Align-SLM. `utterances` were looked at; those without two tokens are left out of the means and counted in
    `short`. Self-BLEU grows with the number of utterances: compare sets of one size.
    """

    auto_bleu: float | None
    auto_bleu_interval: Interval | None
    repeated_bigrams: float | None
    self_bleu: float | None
    vert: float | None
    utterances: int
    short: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


def repeated(tokens: Tokens, n: int = 2) -> float | None:
    """The share of the n-grams that occur at another place too, overlaps counted; None without any n-gram.

    Auto-BLEU-n as Align-SLM filters by (Lin et al. 2025); its reference counts an utterance without n-grams as 0.
    """
    grams = _grams(tokens, n)
    counts = Counter(grams)
    return sum(counts[gram] > 1 for gram in grams) / len(grams) if grams else None


def auto_bleu(tokens: Tokens, orders: Sequence[int] = ORDERS) -> float | None:
    """GSLM's auto-BLEU: the geometric mean over `orders` of the share of n-grams that occur elsewhere.

    Elsewhere is where not one token is shared: "a a a" repeats no bigram. None for fewer tokens than the largest order
    (the reference counts one token as 0).
    """
    require(len(orders) > 0, "orders", orders, "at least one")
    if len(tokens) < max(orders):
        return None
    return float(np.prod([_apart(_grams(tokens, n), n) for n in orders]) ** (1 / len(orders)))


def self_bleu(utterances: Sequence[Tokens], orders: Sequence[int] = ORDERS) -> list[float]:
    """BLEU of each utterance against all others as references, without a penalty for length.

    The geometric mean over `orders` of clipped precisions: an n-gram counts at most as often as it occurs in that other
    utterance which has most of it. 0 where nothing is shared in some order. Raises `UserError` for fewer than two.
    """
    require(len(utterances) > 1, "utterances", len(utterances), "at least two: each is compared with the others")
    shares = np.array([_clipped(utterances, n) for n in orders])
    return (shares.prod(0) ** (1 / len(orders))).tolist()


def diversity(utterances: Sequence[Tokens]) -> Diversity:
    """The figures of a set; VERT is the geometric mean of self-BLEU-2 and auto-BLEU-2, each a mean over utterances."""
    kept = [tokens for tokens in utterances if len(tokens) >= max(ORDERS)]
    auto = [value for tokens in kept if (value := auto_bleu(tokens)) is not None]
    bigrams = [value for tokens in kept if (value := repeated(tokens)) is not None]
    own, among = _mean(auto), _mean(self_bleu(kept)) if len(kept) > 1 else None
    return Diversity(
        auto_bleu=own,
        auto_bleu_interval=bootstrap_interval(auto),
        repeated_bigrams=_mean(bigrams),
        self_bleu=among,
        vert=None if own is None or among is None else (own * among) ** 0.5,
        utterances=len(utterances),
        short=len(utterances) - len(kept),
    )


def _grams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    require(n >= 1, "n", n, "at least 1")
    plain = tokens.tolist() if isinstance(tokens, np.ndarray) else list(tokens)
    return list(zip(*(plain[k:] for k in range(n)), strict=False))


def _apart(grams: Sequence[tuple[Hashable, ...]], n: int) -> float:
    """The share of n-grams that occur n tokens away or more: the first or the last place is the farthest."""
    places: defaultdict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for place, gram in enumerate(grams):
        places[gram].append(place)
    found = sum(max(place - known[0], known[-1] - place) >= n for known in places.values() for place in known)
    return found / len(grams)


def _clipped(utterances: Sequence[Tokens], n: int) -> list[float]:
    """Of each utterance, the share of its n-grams that another one holds as often."""
    counted = [Counter(_grams(tokens, n)) for tokens in utterances]
    most: defaultdict[tuple[Hashable, ...], list[tuple[int, int]]] = defaultdict(list)
    for owner, counts in enumerate(counted):
        for gram, count in counts.items():
            most[gram] = sorted([*most[gram], (count, owner)], reverse=True)[:2]

    def elsewhere(gram: tuple[Hashable, ...], owner: int) -> int:
        return max((count for count, other in most[gram] if other != owner), default=0)

    return [
        sum(min(count, elsewhere(gram, owner)) for gram, count in counts.items()) / max(counts.total(), 1)
        for owner, counts in enumerate(counted)
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
