"""The gate on WavLM's and BEATs' relative position bias (Chen et al. 2022, WavLM, section 3.1)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.linear import Linear


class BiasGate(nn.Module):
    """How much of the bias a query takes, computed from `x` head by head, in float32.

    `x` is the layer's input in WavLM, and the projected queries, heads side by side, in BEATs.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], bias: Float[Array, "H T T"]) -> Float[Array, "B H T T"]:
        split = x.reshape(*x.shape[:2], self.heads, -1)
        scores = Linear(8, in_names=("head",), dtype=self.dtype, name="project")(split)
        scores = scores.astype(at_least_float32(scores.dtype))
        first, second = jnp.moveaxis(jax.nn.sigmoid(scores.reshape(*scores.shape[:-1], 2, 4).sum(-1)), -1, 0)
        init = nn.with_logical_partitioning(nn.initializers.ones, ("heads",))
        constant = self.param("constant", init, (self.heads,), jnp.float32)
        gate = first * (second * constant - 1.0) + 2.0
        return gate.transpose(0, 2, 1)[..., None] * bias
