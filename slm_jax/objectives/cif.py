"""How many tokens a row of weights fires, against how many there are (Dong and Xu 2020, section 3.2)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slm_jax.core.contracts import Term


def quantity(weights: Float[Array, "B T"], targets: Int[Array, "B"], weight: float = 1.0) -> Term:
    """The quantity loss: |sum of the weights - target| of each row, over rows that have a target (0: none).

    `weights`: of `adapters.cif.CIF.weights`, before anything is scaled.
    """
    known = targets > 0
    missed = jnp.abs(weights.sum(1) - targets)
    return Term(jnp.where(known, missed, 0.0).sum(), known.sum().astype(jnp.float32), weight)
