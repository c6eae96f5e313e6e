"""How long a listener waits: percentiles of times, and times as multiples of the speech they belong to."""

from collections.abc import Sequence

import numpy as np

from slm_jax.core.errors import require

PERCENTILES = (50, 90, 99)


def percentiles(seconds: Sequence[float], prefix: str = "") -> dict[str, float | None]:
    """`p50`, `p90`, `p99` and `mean` of times in seconds; None for all where there are none."""
    names = [f"{prefix}p{share}" for share in PERCENTILES] + [f"{prefix}mean"]
    if not len(seconds):
        return dict.fromkeys(names)
    values = [float(np.percentile(seconds, share)) for share in PERCENTILES] + [float(np.mean(seconds))]
    return dict(zip(names, values, strict=True))


def real_time_factor(seconds: Sequence[float], speech_s: Sequence[float]) -> float | None:
    """Time taken per second of speech, over all together; None without any speech."""
    require(len(seconds) == len(speech_s), "seconds of speech", len(speech_s), f"one for each of {len(seconds)} times")
    total = float(np.sum(speech_s))
    return float(np.sum(seconds)) / total if total > 0 else None
