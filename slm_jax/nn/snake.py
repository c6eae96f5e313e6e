"""Snake, a periodic activation whose rate is learnt for every channel (Liu et al. 2020)."""

from math import factorial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.core.types import Frames

PI = tuple(np.float32(part) for part in (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7))
"""Three float32 numbers that add up to pi; multiples of the first two by up to 2^13 are exact."""
SINE = tuple((-1) ** n / factorial(2 * n + 1) for n in range(6))
"""Of the sine's series in the square of its argument."""


class Snake(nn.Module):
    """x + sin(a x)^2 / a, a learnt for every channel."""

    @nn.compact
    def __call__(self, frames: Frames) -> Frames:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        alpha = self.param("alpha", init, (frames.values.shape[-1],), jnp.float32)
        wave = sine_squared(alpha * frames.values) / (alpha + 1e-9)
        return Frames(frames.values + wave.astype(frames.values.dtype), frames.mask)


def sine_squared(x: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """sin(x)^2 in float32, to 1e-6 for |x| up to 10,000; of float64 in full.

    The square has half the sine's period, so that a multiple of pi leaves an argument of at most pi / 2 in size, where
    six terms are exact enough. XLA's own sine on CPU takes as long as the convolution behind it: 106 ms of 136 for 15 M
    numbers on one core, which these products hide behind reading them.
    """
    if x.dtype == jnp.float64:
        return jnp.square(jnp.sin(x))
    x = x.astype(jnp.float32)
    turns = jax.lax.stop_gradient(jnp.round(x * np.float32(1 / np.pi)))
    rest = x - turns * PI[0] - turns * PI[1] - turns * PI[2]
    rest = jnp.clip(rest, -1.6, 1.6)  # of numbers so large that nothing is left of their phase
    series = jnp.polyval(jnp.asarray(SINE[::-1], jnp.float32), jnp.square(rest))
    return jnp.square(rest * series)
