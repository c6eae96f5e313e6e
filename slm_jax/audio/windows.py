"""Long recordings as windows that are cut where it is quiet, so that no word lies in two of them."""

import numpy as np
from jaxtyping import Float

from slm_jax.core.errors import require

SEARCHED = 1 / 6
"""Share of a window, at its end, in which a quiet place is looked for."""


def quiet_windows(samples: Float[np.ndarray, "N"], window: int, rate_hz: int) -> list[tuple[int, int]]:
    """(first, one past last) sample of consecutive windows of at most `window` samples.

    Each but the last ends in the middle of the quietest tenth of a second of its last sixth.
    """
    block = rate_hz // 10
    require(window >= block, "window", window, f"samples, at least a tenth of a second ({block})")
    found, start = [], 0
    while len(samples) - start > window:
        first = start + window - max(int(window * SEARCHED), block)
        end = _quietest(samples[first : start + window], block) + first
        found.append((start, end))
        start = end
    return [*found, (start, len(samples))]


def _quietest(samples: Float[np.ndarray, "N"], block: int) -> int:
    """The middle of the quietest `block` samples."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[block:] - energy[:-block])) + block // 2
