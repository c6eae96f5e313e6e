"""How sure a mean over few items is: intervals by the bootstrap (Efron 1979)."""

from collections.abc import Sequence

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
    require(0 < share < 1, "share", share, "lies in (0, 1)")
    require(draws >= 1, "draws", draws, "at least 1")
    if len(values) < 2:
        return None
    seen = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(len(seen), size=(draws, len(seen)))
    low, high = np.quantile(seen[chosen].mean(1), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
