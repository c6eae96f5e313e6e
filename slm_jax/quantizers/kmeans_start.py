"""Where k-means starts: greedy k-means++ on a sub-sample."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


@partial(jax.jit, static_argnames=("clusters", "candidates"))
def kmeans_plus_plus(
    rows: Float[Array, "S D"], key: Key[Array, ""], *, clusters: int, candidates: int = 0
) -> Float[Array, "K D"]:
    """`clusters` rows, drawn one after the other with probability proportional to the squared distance to those drawn.

    Every draw tries `candidates` rows and keeps the one that lowers the total distance most (0: `2 + ln K` of them,
    as scikit-learn does). Source: Arthur and Vassilvitskii 2007, the greedy variant of its section 5.
    """
    trials = candidates or 2 + int(math.log(clusters))
    square_norms = jnp.square(rows).sum(-1)
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, rows.shape[0])
    distances = _square_distances(rows, square_norms, first[None])[0]
    chosen = jnp.zeros((clusters,), jnp.int32).at[0].set(first)

    def draw(step: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distances = carry
        options = _proportional(jax.random.fold_in(key, step), distances, trials)
        lowered = jnp.minimum(distances, _square_distances(rows, square_norms, options))
        best = lowered.sum(-1).argmin()
        return chosen.at[step].set(options[best]), lowered[best]

    chosen, _ = jax.lax.fori_loop(1, clusters, draw, (chosen, distances))
    return rows[chosen]


def _square_distances(
    rows: Float[Array, "S D"], square_norms: Float[Array, "S"], ids: Int[Array, "R"]
) -> Float[Array, "R S"]:
    products = jnp.einsum("rd,sd->rs", rows[ids], rows, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(square_norms[ids][:, None] - 2 * products + square_norms, 0)


def _proportional(key: Key[Array, ""], weights: Float[Array, "S"], count: int) -> Int[Array, "R"]:
    """`count` indices drawn with replacement with probability proportional to `weights`."""
    cumulative = jnp.cumsum(weights)
    targets = jax.random.uniform(key, (count,)) * cumulative[-1]
    return jnp.minimum(jnp.searchsorted(cumulative, targets, side="right"), weights.shape[0] - 1).astype(jnp.int32)
