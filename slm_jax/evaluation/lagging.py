"""How far behind its source a text is that is written while the source is read: seconds, not seconds of computing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from slm_jax.core.errors import require


def average_lagging(read_s: Sequence[float] | Float[np.ndarray, "T"], source_s: float, wanted: int = 0) -> float:
    """Length-adaptive average lagging in seconds (Papi et al. 2022, arXiv 2206.05807; Ma et al. 2019).

    `read_s`: seconds of a source of `source_s` seconds that were read when each token was written. The mean, up to the
    first token for which all was read, of how much later that is than at the pace at which the longer one of this text
    and one of `wanted` tokens would go by evenly. Reading all of it first gives `source_s`. Raises `UserError` without
    tokens.
    """
    require(len(read_s) > 0, "read_s", read_s, "at least one token")
    read = np.minimum(np.asarray(read_s, np.float64), source_s)
    even = source_s / max(len(read), wanted)
    everything = np.flatnonzero(read >= source_s - 1e-9)
    counted = (int(everything[0]) if len(everything) else len(read) - 1) + 1
    return float(np.mean(read[:counted] - even * np.arange(counted)))
