"""How sure a mean over few items is: intervals by the bootstrap (Efron 1979)."""

from collections.abc import Iterable, Sequence

import numpy as np

from slm_jax.core.errors import require

Interval = tuple[float, float]


def bootstrap_interval(
    values: Sequence[float], seed: int = 0, share: float = 0.95, draws: int = 2000
) -> Interval | None:
    """Between which bounds `share` of the means lie when as many values are drawn anew, with repetitions.

    `values`: one per item, independent of each other. None for fewer than two. Equal values give an interval of no
    width: the bootstrap knows nothing beyond what it was shown. The same seed gives the same interval.
    """
    return ratio_interval([(value, 1.0) for value in values], seed, share, draws)


def ratio_interval(
    pairs: Sequence[tuple[float, float]], seed: int = 0, share: float = 0.95, draws: int = 2000
) -> Interval | None:
    """`bootstrap_interval` of a rate that is a sum over a sum, such as errors over words: a pair for each item."""
    require(0 < share < 1, "share", share, "lies in (0, 1)")
    require(draws >= 1, "draws", draws, "at least 1")
    if len(pairs) < 2:
        return None
    seen = np.asarray(pairs, np.float64)
    chosen = np.random.default_rng(seed).integers(len(seen), size=(draws, len(seen)))
    sums = seen[chosen].sum(1)
    rates = sums[:, 0] / np.maximum(sums[:, 1], np.finfo(np.float64).tiny)
    low, high = np.quantile(rates, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def over_seeds(values: Iterable[float | None]) -> str:
    """A figure of several trainings in words: the mean, and the least and the most where they differ; "–" for none."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    least, most = f"{min(known):.2f}", f"{max(known):.2f}"
    return f"{np.mean(known):.2f}" + (f" ({least}–{most})" if least != most else "")
