"""Real numbers of a stream as ids of a fine grid, predicted by one number: the mean of a Laplace distribution.

So a stream of reals (log F0, durations) is read, trained, drawn and judged like one of classes: cross-entropy on the
grid is the Laplace likelihood, whose gradient is that of the absolute error over `scale`, and a temperature multiplies
the scale (Kharitonov et al. 2021, whose scale is 1 in training).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class GridConfig(Config):
    """Id i stands for `lowest + step * i`, i below `count`. `scale`: that of the distribution around its mean."""

    lowest: float
    step: float
    count: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("step", "scale"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(self.count >= 2, "count", self.count, "at least 2")

    def ids(self, values: Real[np.ndarray, "*B"]) -> Int[np.ndarray, "*B"]:
        """The nearest id of each number; the outermost for what lies beyond."""
        nearest = np.rint((np.asarray(values, np.float64) - self.lowest) / self.step)
        return np.clip(nearest, 0, self.count - 1).astype(np.int32)

    def values(self, ids: Any) -> Any:
        """What ids stand for, float32."""
        return self.lowest + self.step * ids.astype(np.float32)

    def logits(self, mean: Float[Array | np.ndarray, "*B 1"]) -> Float[Array, "*B V"]:
        """Logits of all ids around a mean."""
        return -jnp.abs(self.values(jnp.arange(self.count)) - mean) / self.scale
