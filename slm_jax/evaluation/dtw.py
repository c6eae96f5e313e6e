"""Dynamic time warping of many pairs at once, on the device: frame distances and the mean distance on the best path.

The path is that of the ZeroSpeech scorer: steps of one frame in either or both, cost the sum of what it visits, divided
by how many cells that is; where steps cost the same, both first, then one in the second, then one in the first.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.core.errors import require

EPSILON = 1e-6
"""Is added to probabilities before they are divided, as the scorer does."""
CELLS = 2**17
"""Cells of all distance matrices of a batch together, about: the rows of a batch follow from their length."""
TOGETHER = 64
Rows = Float[Array, "B N D"]
Cells = Float[Array, "B N M"]


def angular(a: Rows, b: Float[Array, "B M D"]) -> Cells:
    """The angle between frames over pi, 0 to 1; a frame of zeros is 1 from all others and 0 from another of zeros."""
    (a, zero_a), (b, zero_b) = _unit(a), _unit(b)
    angle = jnp.arccos(jnp.clip(_products(a, b), -1.0, 1.0)) / math.pi
    either, both = zero_a[:, :, None] | zero_b[:, None], zero_a[:, :, None] & zero_b[:, None]
    return jnp.where(both, 0.0, jnp.where(either, 1.0, angle))


def euclidean(a: Rows, b: Float[Array, "B M D"]) -> Cells:
    """The length of the difference of frames as they are; no frame is normalised before."""
    return jnp.sqrt(jnp.square(a[:, :, None] - b[:, None]).sum(-1))


def kl(a: Rows, b: Float[Array, "B M D"]) -> Cells:
    """KL(a || b) in nats of frames that are distributions over D."""
    entropy = (a * jnp.log(a + EPSILON)).sum(-1)[:, :, None]
    return entropy - _products(a, jnp.log(b + EPSILON))


def symmetric_kl(a: Rows, b: Float[Array, "B M D"]) -> Cells:
    """The mean of KL(a || b) and KL(b || a)."""
    return (kl(a, b) + kl(b, a).swapaxes(1, 2)) / 2


DISTANCES: dict[str, Callable[[Rows, Float[Array, "B M D"]], Cells]] = {
    "angular": angular,
    "euclidean": euclidean,
    "kl": kl,
    "symmetric_kl": symmetric_kl,
}


def dtw(distances: Cells, n: Int[Array, "B"], m: Int[Array, "B"]) -> Float[Array, "B"]:
    """The mean distance on the cheapest path through the first `n` rows and `m` columns of each matrix.

    All batches go along together, one anti-diagonal at a time: its cells depend on the two before it only.
    """
    rows = distances.shape[1]
    corner = jnp.where(jnp.arange(rows) == 0, 0.0, jnp.inf)

    def step(carry: tuple, here: tuple) -> tuple[tuple, None]:
        before, last, found = carry
        number, cells = here
        cost, length = _cheapest(before, last, number == 0, corner)
        now = (cells + cost, length + 1)
        value = jnp.take_along_axis(now[0] / now[1], n[:, None] - 1, axis=1)[:, 0]
        return (last, now, jnp.where(number == n + m - 2, value, found)), None

    skewed = _skewed(distances)
    nothing = jnp.full(skewed.shape[1:], jnp.inf), jnp.zeros(skewed.shape[1:], jnp.int32)
    start = nothing, nothing, jnp.zeros(len(n))
    return jax.lax.scan(step, start, (jnp.arange(len(skewed)), skewed))[0][2]


def pair_distances(
    frames: Sequence[Float[np.ndarray, "_ D"]], pairs: Int[np.ndarray, "P 2"], distance: str = "angular"
) -> Float[np.ndarray, "P"]:
    """The distance of each pair of places in `frames`, by DTW; raises `UserError` for an unknown distance.

    Pairs of about one length are computed together, padded to a power of two.
    """
    known = ", ".join(DISTANCES)
    require(distance in DISTANCES, "distance", distance, f"must be one of {known}")
    lengths = np.array([len(one) for one in frames])
    require(bool((lengths > 0).all()), "frames", 0, "every item must have one at least")
    found = np.zeros(len(pairs), np.float32)
    sizes = _powers(lengths[pairs].max(1)) if len(pairs) else np.zeros(0, int)
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        own = np.unique(pairs[places])
        table, counts = _table([frames[place] for place in own], int(size))
        here = np.searchsorted(own, pairs[places])
        rows = max(1, min(CELLS // int(size) ** 2, _powers(np.array([len(places), TOGETHER])).max()))
        for start in range(0, len(places), rows):
            some = np.zeros((rows, 2), np.int32)
            some[: len(here[start : start + rows])] = here[start : start + rows]
            values = np.asarray(_distances(table, counts, some, distance))
            found[places[start : start + rows]] = values[: len(places) - start]
    return found


@partial(jax.jit, static_argnums=3)
def _distances(
    table: Float[Array, "I S D"], lengths: Int[Array, "I"], pairs: Int[Array, "B 2"], distance: str
) -> Float[Array, "B"]:
    """Frames are compared `TOGETHER` pairs at a time: of wide ones a whole batch leaves the caches."""

    def cells(pair: Int[Array, "2"]) -> Float[Array, "S S"]:
        return DISTANCES[distance](table[pair[:1]], table[pair[1:]])[0]

    distances = jax.lax.map(cells, pairs, batch_size=TOGETHER)
    return dtw(distances, lengths[pairs[:, 0]], lengths[pairs[:, 1]])


def _cheapest(before: tuple, last: tuple, first: Array, corner: Array) -> tuple[Array, Array]:
    """Cost and length of the cheapest way to each cell of an anti-diagonal, without the cell itself."""
    both, up = _down(before), _down(last)
    by_both = (both[0] <= last[0]) & (both[0] <= up[0])
    by_left = last[0] <= up[0]
    cost = jnp.where(by_both, both[0], jnp.where(by_left, last[0], up[0]))
    length = jnp.where(by_both, both[1], jnp.where(by_left, last[1], up[1]))
    return jnp.where(first, corner, cost), jnp.where(first, 0, length)


def _down(diagonal: tuple) -> tuple[Array, Array]:
    """The same cells one row further down."""
    cost, length = diagonal
    return jnp.pad(cost[:, :-1], ((0, 0), (1, 0)), constant_values=jnp.inf), jnp.pad(length[:, :-1], ((0, 0), (1, 0)))


def _skewed(distances: Cells) -> Float[Array, "A B N"]:
    """Anti-diagonals: entry [d, :, i] is cell (i, d - i), infinite where there is none."""
    b, n, m = distances.shape
    wide = jnp.pad(distances, ((0, 0), (0, 0), (0, n)), constant_values=jnp.inf)
    return wide.reshape(b, -1)[:, : n * (n + m - 1)].reshape(b, n, n + m - 1).transpose(2, 0, 1)


def _unit(frames: Array) -> tuple[Array, Array]:
    norm = jnp.sqrt(jnp.square(frames).sum(-1))
    return frames / jnp.where(norm > 0, norm, 1.0)[..., None], norm == 0


def _products(a: Array, b: Array) -> Cells:
    return jnp.einsum("bnd,bmd->bnm", a, b, precision="highest")


def _powers(lengths: Int[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
    return 2 ** np.ceil(np.log2(np.maximum(lengths, 8))).astype(int)


def _table(items: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Items padded to `size` frames, in a table of as many rows as the next power of two; and their lengths."""
    rows = int(_powers(np.array([len(items)]))[0])
    table, lengths = np.zeros((rows, size, items[0].shape[1]), np.float32), np.ones(rows, np.int32)
    for row, item in enumerate(items):
        table[row, : len(item)], lengths[row] = item, len(item)
    return table, lengths
