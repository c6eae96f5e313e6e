"""Nearest centroid: the one distance computation behind fitting, assigning and tokenizing."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from slm_jax.core.errors import require

AnyArray = jax.Array | np.ndarray

CHUNK_ROWS = 4096
"""Rows whose distances to all centroids are in memory at once."""


def nearest(rows: Float[Array, "*S D"], centroids: Float[Array, "K D"]) -> tuple[Int[Array, "*S"], Float[Array, "*S"]]:
    """Index of the nearest centroid by squared Euclidean distance (ties to the lowest index), and that distance."""
    rows, centroids = rows.astype(jnp.float32), centroids.astype(jnp.float32)
    products = jnp.einsum("...d,kd->...k", rows, centroids, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.square(centroids).sum(-1) - 2 * products
    distance = scores.min(-1) + jnp.square(rows).sum(-1)
    return scores.argmin(-1).astype(jnp.int32), jnp.maximum(distance, 0)


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
    frames = features.shape[0]
    return _assign(_pad_rows(features, padded_rows(frames)), centroids)[:frames]


def padded_rows(rows: int) -> int:
    """The next power of two, or above `CHUNK_ROWS` the next multiple of it: few shapes, few compilations."""
    if rows > CHUNK_ROWS:
        return -(-rows // CHUNK_ROWS) * CHUNK_ROWS
    return 1 << max(rows - 1, 0).bit_length()


def _pad_rows(features: Shaped[AnyArray, "T D"], rows: int) -> Shaped[Array, "T2 D"]:
    return jnp.pad(jnp.asarray(features), ((0, rows - features.shape[0]), (0, 0)))


@jax.jit
def _assign(features: Shaped[AnyArray, "T D"], centroids: Shaped[AnyArray, "K D"]) -> Int[Array, "T"]:
    if features.shape[0] <= CHUNK_ROWS:
        return nearest(features, centroids)[0]
    chunks = features.reshape(-1, CHUNK_ROWS, features.shape[-1])
    return jax.lax.map(lambda chunk: nearest(chunk, centroids)[0], chunks).reshape(-1)
