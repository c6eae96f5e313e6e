"""Nearest centroid: the one distance computation behind fitting, assigning and tokenizing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from slm_jax.core.errors import require

AnyArray = jax.Array | np.ndarray

PROGRAM_ROWS = 32768
"""Rows of one compiled program: more are cut into such chunks."""
BLOCK_ROWS, BLOCK_ROWS_CPU = 4096, 512
"""Rows whose distances to all centroids are in memory at once; on a CPU they should stay in its cache."""
STRETCH, STRETCHES = 128, 16
"""Distances that are compared with each other element by element: in stretches of this width, or in so many."""


def nearest(rows: Float[Array, "*S D"], centroids: Float[Array, "K D"]) -> tuple[Int[Array, "*S"], Float[Array, "*S"]]:
    """Index of the nearest centroid by squared Euclidean distance (ties to the lowest index), and that distance."""
    rows, centroids = rows.astype(jnp.float32), centroids.astype(jnp.float32)
    products = jnp.einsum("...d,kd->...k", rows, centroids, precision=jax.lax.Precision.HIGHEST)
    units, least = _argmin(jnp.square(centroids).sum(-1) / 2 - products)
    return units, jnp.maximum(2 * least + jnp.square(rows).sum(-1), 0)


def _argmin(scores: Float[Array, "*S K"]) -> tuple[Int[Array, "*S"], Float[Array, "*S"]]:
    """Index of the least score of the last axis (ties to the lowest), and that score.

    XLA's argmin on CPU takes pairs one at a time, and its plain minima write all that they read to memory first. So
    stretches of the axis are compared with each other in loops over elements, which write one stretch; what is left is
    small. The last stretch may repeat some of the one before.
    """
    count = scores.shape[-1]
    width = min(count, max(STRETCH, -(-count // STRETCHES)))
    starts = [min(start, count - width) for start in range(0, count, width)]
    stretches = [scores[..., start : start + width] for start in starts]
    least = functools.reduce(jnp.minimum, stretches)
    found = jnp.zeros(least.shape, jnp.int32)
    for start, stretch in reversed(list(zip(starts, stretches, strict=True))):  # so the lowest of equals remains
        found = jnp.where(stretch <= least, start + jnp.arange(width, dtype=jnp.int32), found)
    best = least.min(-1, keepdims=True)
    return jnp.where(least > best, count, found).min(-1), best[..., 0]


def assign(features: Shaped[AnyArray, "T D"], centroids: Shaped[AnyArray, "K E"]) -> Int[Array, "T"]:
    """Unit of every frame: int32 index of the nearest centroid, computed in float32, ties to the lowest index.

    Takes numpy or JAX arrays; memory is bounded by `BLOCK_ROWS` x K distances. Raises `UserError` when the widths
    of features and centroids differ.
    """
    require(
        features.ndim == 2 and features.shape[-1] == centroids.shape[-1],
        "features",
        features.shape,
        f"must be [T, {centroids.shape[-1]}], the width of the centroids",
    )
    chunks = [features[start : start + PROGRAM_ROWS] for start in range(0, len(features), PROGRAM_ROWS)]
    units = [_assign(_pad_rows(chunk, padded_rows(len(chunk))), centroids, len(chunk)) for chunk in chunks]
    kept = [found[: len(chunk)] for found, chunk in zip(units, chunks, strict=True)]
    return jnp.concatenate(kept) if kept else jnp.zeros(0, jnp.int32)


def padded_rows(rows: int) -> int:
    """The next power of two: few shapes, few compilations."""
    return 1 << max(rows - 1, 0).bit_length()


def _pad_rows(features: Shaped[AnyArray, "T D"], rows: int) -> Shaped[Array, "T2 D"]:
    if rows == len(features):
        return jnp.asarray(features)
    return jnp.pad(jnp.asarray(features), ((0, rows - features.shape[0]), (0, 0)))


@jax.jit
def _assign(
    features: Shaped[AnyArray, "T D"], centroids: Shaped[AnyArray, "K D"], rows: int | Array
) -> Int[Array, "T"]:
    """Units of the first `rows` frames, block by block; whole blocks behind them are left out."""
    size = min(BLOCK_ROWS_CPU if jax.default_backend() == "cpu" else BLOCK_ROWS, len(features))

    def one_block(index: Array, units: Array) -> Array:
        block = jax.lax.dynamic_slice_in_dim(features, index * size, size)
        return jax.lax.dynamic_update_slice_in_dim(units, nearest(block, centroids)[0], index * size, 0)

    return jax.lax.fori_loop(0, (rows + size - 1) // size, one_block, jnp.zeros(len(features), jnp.int32))
