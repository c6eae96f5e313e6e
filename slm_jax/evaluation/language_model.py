"""Baselines and statistics for unit language models: smoothed n-grams, entropy, repetition, variety."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require

Ids = Int[np.ndarray, "_"]
"""The L units of one sequence (sequences differ in L)."""
STRENGTHS = tuple(float(s) for s in np.logspace(-1, 4, 26))


@dataclasses.dataclass(frozen=True)
class NGram:
    """An interpolated n-gram model over units 0..V-1: p_n(w | h) = (c(h, w) + s_n p_{n-1}(w | h')) / (c(h) + s_n).

    The recursion ends in the uniform distribution; `strengths` s_1..s_n are tuned on held-out data. `tables` holds,
    per order, sorted keys and counts of n-grams and of their contexts. With `count_end` the end of a sequence is
    an event too.
    """

    units: int
    count_end: bool
    strengths: tuple[float, ...]
    tables: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]

    @property
    def order(self) -> int:
        """1 for a unigram, 2 for a bigram, ..."""
        return len(self.tables)

    def log_probabilities(self, sequences: Sequence[Ids]) -> Float[np.ndarray, "E"]:
        """ln p of every unit (and end, when counted) of all sequences, in order."""
        return np.log(self._levels(_events(sequences, self.order, self.units, self.count_end))[-1])

    def nats_per_unit(self, sequences: Sequence[Ids]) -> float:
        """Mean negative log-likelihood of an event, in nats."""
        return float(-self.log_probabilities(sequences).mean())

    def _levels(self, events: Int[np.ndarray, "E n"]) -> list[Float[np.ndarray, "E"]]:
        """Probabilities of the events under the orders 1..n."""
        levels = [np.full(len(events), 1.0 / (self.units + self.count_end))]
        for n, (strength, (keys, counts, contexts, context_counts)) in enumerate(
            zip(self.strengths, self.tables, strict=True), start=1
        ):
            with_unit = _looked_up(keys, counts, _keys(events[:, -n:], self.units))
            without = _looked_up(contexts, context_counts, _keys(events[:, -n:-1], self.units))
            levels.append((with_unit + strength * levels[-1]) / (without + strength))
        return levels


def fit_ngram(
    sequences: Sequence[Ids], units: int, order: int, *, tune_on: Sequence[Ids], count_end: bool = False
) -> NGram:
    """An `NGram` counted on `sequences`, its smoothing tuned order by order on `tune_on` (never the test part)."""
    require(order >= 1, "order", order, "at least 1")
    events = _events(sequences, order, units, count_end)
    require(len(events) > 0, "training events", 0, "at least one unit is needed")
    tables = tuple(
        (*np.unique(_keys(events[:, -n:], units), return_counts=True),
         *np.unique(_keys(events[:, -n:-1], units), return_counts=True))
        for n in range(1, order + 1)
    )  # fmt: skip
    held_out = _events(tune_on, order, units, count_end)
    strengths: list[float] = []
    require(len(held_out) > 0, "tuning events", 0, "at least one unit is needed")
    for n in range(1, order + 1):
        tried = [NGram(units, count_end, (*strengths, s), tables[:n]) for s in STRENGTHS]
        losses = [-np.log(model._levels(held_out)[-1]).mean() for model in tried]
        strengths.append(STRENGTHS[int(np.argmin(losses))])
    return NGram(units, count_end, tuple(strengths), tables)


def ngram_nats(splits: Mapping[str, Sequence[Ids]], units: int, *, count_end: bool = False) -> dict[str, float]:
    """Nats per entry of the test split under the `unigram` and the `bigram` of the training split.

    Smoothing is tuned on the dev split, or on the training split where that is empty.
    """
    tuned = splits["dev"] or splits["train"]
    fits = {
        word: fit_ngram(splits["train"], units, order, tune_on=tuned, count_end=count_end)
        for order, word in ((1, "unigram"), (2, "bigram"))
    }
    return {word: fit.nats_per_unit(splits["test"]) for word, fit in fits.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceStatistics:
    """What sequences look like without asking a model; entropies in nats, the rest shares or counts.

    `bigram_entropy`: of pairs of neighbours. `conditional_entropy`: of the next unit given the current one.
    `longest_run`: longest stretch of one unit. `longest_loop`: longest stretch that repeats a pattern of up to
    8 units. `distinct_bigrams`, `distinct_trigrams`: different ones per occurrence.
    """

    units: int
    unigram_entropy: float
    bigram_entropy: float
    conditional_entropy: float
    longest_run: int
    longest_loop: int
    distinct_bigrams: float
    distinct_trigrams: float

    def to_json(self) -> dict[str, float | int]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


def sequence_statistics(sequences: Sequence[Ids]) -> SequenceStatistics:
    """The statistics of `sequences`. Entropies and variety depend on the amount: see `at_equal_length`."""
    bigrams, trigrams = _grams(sequences, 2), _grams(sequences, 3)
    pair_entropy = _entropy(bigrams)
    return SequenceStatistics(
        units=sum(len(ids) for ids in sequences),
        unigram_entropy=_entropy(_grams(sequences, 1)),
        bigram_entropy=pair_entropy,
        conditional_entropy=pair_entropy - _entropy(bigrams[:, :1]),
        longest_run=max((longest_repeat(ids, 1) for ids in sequences), default=0),
        longest_loop=max((longest_repeat(ids, p) for ids in sequences for p in range(1, 9)), default=0),
        distinct_bigrams=_distinct(bigrams),
        distinct_trigrams=_distinct(trigrams),
    )


def at_equal_length(*groups: Sequence[Ids]) -> list[list[Ids]]:
    """Each group cut after the number of units that the smallest group has, so that their statistics compare."""
    return [_cut(group, min(sum(len(ids) for ids in g) for g in groups)) for group in groups]


def shuffled(sequences: Sequence[Ids], seed: int = 0) -> list[Ids]:
    """The same units in random order within each sequence: the control that keeps nothing but frequencies."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.asarray(ids)) for ids in sequences]


def longest_repeat(ids: Ids, period: int = 1) -> int:
    """Units in the longest stretch that repeats a pattern of `period` units at least once; for period 1 the longest
    run of one unit, which is 1 for any sequence that is not empty. 0 when there is none."""
    ids = np.asarray(ids)
    equal = (
        np.concatenate([[False], ids[period:] == ids[:-period], [False]]) if len(ids) > period else np.zeros(2, bool)
    )
    edges = np.flatnonzero(np.diff(equal.astype(np.int8)))
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    if longest >= period:
        return longest + period
    return min(len(ids), 1) if period == 1 else 0


def share_seen(sequences: Sequence[Ids], training: Sequence[Ids], n: int) -> float:
    """Share of the n-grams of `sequences` that occur in `training`."""
    known = {tuple(gram) for gram in _grams(training, n).tolist()}
    grams = _grams(sequences, n).tolist()
    return sum(tuple(gram) in known for gram in grams) / max(len(grams), 1)


def _events(sequences: Sequence[Ids], order: int, units: int, count_end: bool) -> Int[np.ndarray, "E n"]:
    """Every unit with the `order` - 1 before it; ids `units` and `units` + 1 stand for the end and the beginning."""
    windows = []
    for ids in sequences:
        ids = np.asarray(ids, np.int64)
        inside = not len(ids) or bool(ids.min() >= 0 and ids.max() < units)
        require(inside, "units", (int(ids.min(initial=0)), int(ids.max(initial=0))), f"0 to {units - 1}")
        padded = np.concatenate([np.full(order - 1, units + 1), ids, np.full(int(count_end), units)]).astype(np.int64)
        if len(padded) >= order:
            windows.append(np.lib.stride_tricks.sliding_window_view(padded, order))
    return np.concatenate(windows) if windows else np.zeros((0, order), np.int64)


def _keys(grams: Int[np.ndarray, "E n"], units: int) -> Int[np.ndarray, "E"]:
    """One integer per n-gram; 0 for the empty one."""
    key = np.zeros(len(grams), np.int64)
    for column in range(grams.shape[1]):
        key = key * (units + 2) + grams[:, column]
    return key


def _looked_up(keys: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0)


def _grams(sequences: Sequence[Ids], n: int) -> Int[np.ndarray, "E n"]:
    long_enough = [np.asarray(ids, np.int64) for ids in sequences if len(ids) >= n]
    windows = [np.lib.stride_tricks.sliding_window_view(ids, n) for ids in long_enough]
    return np.concatenate(windows) if windows else np.zeros((0, n), np.int64)


def _entropy(grams: Int[np.ndarray, "E n"]) -> float:
    if not len(grams):
        return 0.0
    _, counts = np.unique(grams, axis=0, return_counts=True)
    share = counts / counts.sum()
    return float(-np.sum(share * np.log(share)))


def _distinct(grams: Int[np.ndarray, "E n"]) -> float:
    return len(np.unique(grams, axis=0)) / len(grams) if len(grams) else 0.0


def _cut(group: Sequence[Ids], wanted: int) -> list[Ids]:
    """The first `wanted` units of a group, its last sequence shortened."""
    ends = np.cumsum([len(ids) for ids in group])
    kept = [np.asarray(ids)[: max(0, wanted - (end - len(ids)))] for ids, end in zip(group, ends, strict=True)]
    return [ids for ids in kept if len(ids)]
