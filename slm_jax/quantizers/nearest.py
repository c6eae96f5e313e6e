"""Nearest centroid: the one distance computation behind fitting, assigning and tokenizing."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from slm_jax.core.errors import require

AnyArray = jax.Array | np.ndarray

CHUNK_ROWS = 4096
"""Rows of one compiled program: more are cut into such chunks."""
BLOCK_ROWS_CPU = 256
"""Rows whose distances to all centroids are in memory at once on a CPU: they should stay in its cache."""


def nearest(rows: Float[Array, "*S D"], centroids: Float[Array, "K D"]) -> tuple[Int[Array, "*S"], Float[Array, "*S"]]:
    """Index of the nearest centroid by squared Euclidean distance (ties to the lowest index), and that distance."""
    rows, centroids = rows.astype(jnp.float32), centroids.astype(jnp.float32)
    along_rows = (-1,) + (1,) * (rows.ndim - 1)
    products = jnp.einsum("kd,...d->k...", centroids, rows, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.square(centroids).sum(-1).reshape(along_rows) - 2 * products
    least = scores.min(0)
    # not argmin: XLA on CPU reduces pairs one at a time, but takes plain minima over the first axis many at a time
    numbers = jnp.arange(len(centroids), dtype=jnp.int32).reshape(along_rows)
    units = jnp.where(scores > least, len(centroids), numbers).min(0)
    return units, jnp.maximum(least + jnp.square(rows).sum(-1), 0)


def assign(features: Shaped[AnyArray, "T D"], centroids: Shaped[AnyArray, "K E"]) -> Int[Array, "T"]:
    """Unit of every frame: int32 index of the nearest centroid, computed in float32, ties to the lowest index.

    Takes numpy or JAX arrays; memory is bounded by `CHUNK_ROWS` x K distances. Raises `UserError` when the widths
    of features and centroids differ.
    """
    require(
        features.ndim == 2 and features.shape[-1] == centroids.shape[-1],
        "features",
        features.shape,
        f"must be [T, {centroids.shape[-1]}], the width of the centroids",
    )
    chunks = [features[start : start + CHUNK_ROWS] for start in range(0, len(features), CHUNK_ROWS)]
    units = [_assign(_pad_rows(chunk, padded_rows(len(chunk))), centroids)[: len(chunk)] for chunk in chunks]
    return jnp.concatenate(units) if units else jnp.zeros(0, jnp.int32)


def padded_rows(rows: int) -> int:
    """The next power of two: few shapes, few compilations."""
    return 1 << max(rows - 1, 0).bit_length()


def _pad_rows(features: Shaped[AnyArray, "T D"], rows: int) -> Shaped[Array, "T2 D"]:
    if rows == len(features):
        return jnp.asarray(features)
    return jnp.pad(jnp.asarray(features), ((0, rows - features.shape[0]), (0, 0)))


@jax.jit
def _assign(features: Shaped[AnyArray, "T D"], centroids: Shaped[AnyArray, "K D"]) -> Int[Array, "T"]:
    block = BLOCK_ROWS_CPU if jax.default_backend() == "cpu" else CHUNK_ROWS
    if len(features) <= block:
        return nearest(features, centroids)[0]
    blocks = features.reshape(-1, block, features.shape[-1])
    return jax.lax.map(lambda rows: nearest(rows, centroids)[0], blocks).reshape(-1)
