"""Rows that k-means goes over: all of them on the devices, or in host memory and on the devices piece by piece."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from slm_jax.quantizers.nearest import BLOCK_ROWS, AnyArray, nearest

Place = Callable[[np.ndarray], Array]
"""Puts rows on the devices, all on one or spread over several."""


class Running(NamedTuple):
    """State of mini-batch k-means: centroids and how many rows each has seen."""

    centroids: Float[Array, "K D"]
    counts: Float[Array, "K"]


class Pass(NamedTuple):
    """What one pass over the rows tells: per-cluster sums and counts, inertia, and which rows are far from theirs.

    `far`: every row's distance `[C, P, R]` where all are on the devices, the K farthest rows `[K, D]`, the farthest
    first, where they are not.
    """

    sums: Float[Array, "K D"]
    counts: Float[Array, "K"]
    inertia: Float[Array, ""]
    far: Float[Array, "..."]


@runtime_checkable
class Rows(Protocol):
    """What k-means asks of its rows; `total` is their number."""

    total: int

    def mean_variance(self) -> float: ...
    def statistics(self, centroids: Any) -> Pass: ...
    def move(self, centroids: Any, seen: Pass) -> tuple[Any, Any]: ...
    def fill(self, centroids: Any, seen: Pass) -> Any: ...
    def mini_batches(self, running: Running, keys: Any, batch: int) -> tuple[Running, Any]: ...
    def reseed(self, running: Running, key: Any, share: float, batch: int) -> Running: ...


class Blocks(NamedTuple):
    """Rows cut for the devices: C chunks x P shards x R rows, padded with rows of weight 0."""

    rows: Float[Array, "C P R D"]
    weights: Float[Array, "C P R"]

    @classmethod
    def of(cls, features: Shaped[AnyArray, "T D"]) -> "Blocks":
        """Cut `features`; the shard axis keeps the sharding of its first axis."""
        sharding = getattr(features, "sharding", None)
        shards, placed = 1, None
        if isinstance(sharding, NamedSharding) and sharding.spec and sharding.spec[0] is not None:
            shards = features.shape[0] // sharding.shard_shape(features.shape)[0]
            placed = NamedSharding(sharding.mesh, PartitionSpec(None, sharding.spec[0]))
        per_shard = features.shape[0] // shards
        chunks = -(-per_shard // BLOCK_ROWS)
        cut = jax.jit(partial(_cut, shards=shards, chunks=chunks), out_shardings=placed)
        return cls(*cut(jnp.asarray(features)))


def _cut(features: Shaped[AnyArray, "T D"], *, shards: int, chunks: int) -> tuple[Array, Array]:
    rows = features.astype(jnp.float32).reshape(shards, -1, features.shape[-1])
    per_shard = rows.shape[1]
    per_chunk = -(-per_shard // chunks)
    padding = chunks * per_chunk - per_shard
    rows = jnp.pad(rows, ((0, 0), (0, padding), (0, 0))).reshape(shards, chunks, per_chunk, -1)
    weights = jnp.pad(jnp.ones((shards, per_shard)), ((0, 0), (0, padding))).reshape(shards, chunks, per_chunk)
    return rows.swapaxes(0, 1), weights.swapaxes(0, 1)


class DeviceRows:
    """All rows on the devices."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.total = blocks, int(blocks.weights.sum())

    def mean_variance(self) -> float:
        """Mean over the dimensions."""
        return float(_mean_variance(self.blocks))

    def statistics(self, centroids: Float[Array, "K D"]) -> Pass:
        """One pass."""
        return _statistics(self.blocks, centroids)

    def move(self, centroids: Float[Array, "K D"], seen: Pass) -> tuple[Array, Array]:
        """New centroids, empty ones at the rows farthest from theirs, and the summed squared movement."""
        return _move(self.blocks, centroids, seen)

    def fill(self, centroids: Float[Array, "K D"], seen: Pass) -> Float[Array, "K D"]:
        """Empty clusters at the rows farthest from theirs, the others as they are."""
        return _fill(self.blocks, centroids, seen)

    def mini_batches(self, running: Running, keys: Key[Array, "R"], batch: int) -> tuple[Running, Array]:
        """One update per key; also the mean distance of every batch before its update."""
        return _mini_batch_pass(self.blocks, running, keys, batch=batch)

    def reseed(self, running: Running, key: Key[Array, ""], share: float, batch: int) -> Running:
        """Clusters that are empty, or below `share` of the biggest, begin again."""
        return _reseed(_drawn(self.blocks, key, max(batch, len(running.counts))), running, key, share=share)


class HostRows:
    """Rows in host memory, at most `piece` of them on the devices at once. Results differ in the last digits only.

    Mini-batches are other ones: NumPy draws them.
    """

    def __init__(self, rows: Float[np.ndarray, "T D"], piece: int, place: Place) -> None:
        self.rows, self.piece, self.place, self.total = rows, piece, place, len(rows)

    def mean_variance(self) -> float:
        """Mean over the dimensions."""
        sums = squares = np.zeros(self.rows.shape[1])
        for piece in self._pieces():
            sums = sums + piece.sum(0, dtype=np.float64)
        for piece in self._pieces():
            squares = squares + np.square(piece - sums / self.total, dtype=np.float64).sum(0)
        return float((squares / self.total).mean())

    def statistics(self, centroids: Float[Array, "K D"]) -> Pass:
        """One pass, piece by piece."""
        clusters, width = centroids.shape
        total = Pass(jnp.zeros((clusters, width)), jnp.zeros(clusters), jnp.zeros(()), jnp.zeros((0, width)))
        distances = jnp.zeros(0)
        for piece in self._pieces():
            blocks = Blocks.of(self.place(np.asarray(piece, np.float32)))
            seen = _statistics(blocks, centroids)
            rows, own = _farthest_of(blocks, seen.far, min(clusters, len(piece)))
            distances, total = _joined(total, distances, seen, rows, own, clusters)
        return total

    def move(self, centroids: Float[Array, "K D"], seen: Pass) -> tuple[Array, Array]:
        """New centroids, empty ones at the rows farthest from theirs, and the summed squared movement."""
        means = seen.sums / jnp.maximum(seen.counts, 1)[:, None]
        moved = _replaced(seen.counts == 0, seen.far, means)
        return moved, jnp.square(moved - centroids).sum()

    def fill(self, centroids: Float[Array, "K D"], seen: Pass) -> Float[Array, "K D"]:
        """Empty clusters at the rows farthest from theirs, the others as they are."""
        return _replaced(seen.counts == 0, seen.far, centroids)

    def mini_batches(self, running: Running, keys: Key[Array, "R"], batch: int) -> tuple[Running, Array]:
        """One update per key; also the mean distance of every batch before its update."""
        distances = []
        for key in keys:
            running, distance = _updated(running, self._drawn(key, batch))
            distances.append(distance)
        return running, jnp.stack(distances)

    def reseed(self, running: Running, key: Key[Array, ""], share: float, batch: int) -> Running:
        """Clusters that are empty, or below `share` of the biggest, begin again."""
        return _reseed(self._drawn(key, max(batch, len(running.counts))), running, key, share=share)

    def _pieces(self) -> Iterator[np.ndarray]:
        return (self.rows[start : start + self.piece] for start in range(0, self.total, self.piece))

    def _drawn(self, key: Key[Array, ""], count: int) -> Float[Array, "R D"]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return jnp.asarray(self.rows[np.sort(rng.integers(0, self.total, count))], jnp.float32)


@partial(jax.jit, static_argnames="clusters")
def _joined(total: Pass, distances: Any, seen: Pass, rows: Any, own: Any, clusters: int) -> tuple[Array, Pass]:
    """The passes over two parts of the rows as one; the farthest of both."""
    both, far = jnp.concatenate([distances, own]), jnp.concatenate([total.far, rows])
    distances, order = jax.lax.top_k(both, min(clusters, len(both)))
    sums, counts, inertia = (a + b for a, b in zip(total[:3], seen[:3], strict=True))
    return distances, Pass(sums, counts, inertia, far[order])


@partial(jax.jit, static_argnames="wanted")
def _farthest_of(blocks: "Blocks", distances: Float[Array, "C P R"], wanted: int) -> tuple[Array, Array]:
    """The rows that are farthest from their centroids, and how far."""
    far, flat = jax.lax.top_k(distances.reshape(-1), wanted)
    return blocks.rows[jnp.unravel_index(flat, distances.shape)], far


def _replaced(empty: Bool[Array, "K"], far: Float[Array, "F D"], others: Float[Array, "K D"]) -> Float[Array, "K D"]:
    """`others` with the j-th farthest row in place of the j-th empty cluster."""
    rank = jnp.clip(jnp.cumsum(empty) - 1, 0, len(far) - 1)
    return jnp.where(empty[:, None], far[rank], others)


@jax.jit
def _statistics(blocks: Blocks, centroids: Float[Array, "K D"]) -> Pass:
    shards, clusters, width = blocks.rows.shape[1], *centroids.shape

    def one_chunk(carry: tuple[Array, Array, Array], block: Blocks) -> tuple[tuple[Array, Array, Array], Array]:
        ids, distances = nearest(block.rows, centroids)
        sums, counts = _sum_by_cluster(block, ids, clusters)
        distances = distances * block.weights
        return (carry[0] + sums, carry[1] + counts, carry[2] + distances.sum(-1)), distances

    zero = (jnp.zeros((shards, clusters, width)), jnp.zeros((shards, clusters)), jnp.zeros((shards,)))
    (sums, counts, inertia), distances = jax.lax.scan(one_chunk, zero, blocks)
    return Pass(sums.sum(0), counts.sum(0), inertia.sum(), distances)


def _sum_by_cluster(block: Blocks, ids: Int[Array, "P R"], clusters: int) -> tuple[Array, Array]:
    """Per shard: summed rows `[P, K, D]` and summed weights `[P, K]`."""
    weighted = block.rows * block.weights[..., None]
    if jax.default_backend() == "cpu":  # a scatter costs a tenth of the one-hot product there, elsewhere it is slower
        add = jax.vmap(partial(jax.ops.segment_sum, num_segments=clusters))
        return add(weighted, ids), add(block.weights, ids)
    one_hot = jax.nn.one_hot(ids, clusters, dtype=jnp.float32)
    sums = jnp.einsum("prk,prd->pkd", one_hot, weighted, precision=jax.lax.Precision.HIGHEST)
    return sums, jnp.einsum("prk,pr->pk", one_hot, block.weights)


@jax.jit
def _move(blocks: Blocks, centroids: Float[Array, "K D"], seen: Pass) -> tuple[Array, Array]:
    """New centroids, empty ones at the rows farthest from theirs, and the summed squared movement."""
    empty = seen.counts == 0
    means = seen.sums / jnp.maximum(seen.counts, 1)[:, None]
    moved = jax.lax.cond(
        empty.any(), lambda: jnp.where(empty[:, None], _farthest(blocks, seen.far, empty), means), lambda: means
    )
    return moved, jnp.square(moved - centroids).sum()


def _farthest(blocks: Blocks, distances: Float[Array, "C P R"], empty: Bool[Array, "K"]) -> Float[Array, "K D"]:
    """Row for every cluster: the j-th empty cluster gets the j-th farthest row."""
    wanted = min(empty.shape[0], distances.size)
    _, flat = jax.lax.top_k(distances.reshape(-1), wanted)
    rank = jnp.clip(jnp.cumsum(empty) - 1, 0, wanted - 1)
    return blocks.rows[jnp.unravel_index(flat[rank], distances.shape)]


@jax.jit
def _mean_variance(blocks: Blocks) -> Float[Array, ""]:
    count = blocks.weights.sum()
    weights = blocks.weights[..., None]
    mean = (blocks.rows * weights).sum((0, 1, 2)) / count
    return (jnp.square(blocks.rows - mean) * weights).sum((0, 1, 2)).mean() / count


@jax.jit
def _fill(blocks: Blocks, centroids: Float[Array, "K D"], seen: Pass) -> Float[Array, "K D"]:
    """Empty clusters at the rows farthest from theirs, the others as they are."""
    empty = seen.counts == 0
    return jnp.where(empty[:, None], _farthest(blocks, seen.far, empty), centroids)


@partial(jax.jit, static_argnames="batch")
def _mini_batch_pass(
    blocks: Blocks, running: Running, keys: Key[Array, "R"], *, batch: int
) -> tuple[Running, Float[Array, "R"]]:
    """One update per key; also the mean distance of every batch before its update."""

    def one_batch(running: Running, key: Key[Array, ""]) -> tuple[Running, Float[Array, ""]]:
        return _updated(running, _draw(blocks, key, batch))

    return jax.lax.scan(one_batch, running, keys)


@jax.jit
def _updated(running: Running, rows: Float[Array, "R D"]) -> tuple[Running, Float[Array, ""]]:
    """After one mini-batch (Sculley 2010), and the mean distance of its rows before."""
    ids, distances = nearest(rows, running.centroids)
    drawn = Blocks(rows[None], jnp.ones((1, len(rows))))
    sums, fresh = (part[0] for part in _sum_by_cluster(drawn, ids[None], running.counts.shape[0]))
    counts = running.counts + fresh
    centroids = (running.centroids * running.counts[:, None] + sums) / jnp.maximum(counts, 1)[:, None]
    return Running(jnp.where(fresh[:, None] > 0, centroids, running.centroids), counts), distances.mean()


def _draw(blocks: Blocks, key: Key[Array, ""], count: int) -> Float[Array, "R D"]:
    """`count` real rows, drawn with replacement; padding is never drawn because its cumulative weight is flat."""
    cumulative = jnp.cumsum(blocks.weights.reshape(-1).astype(jnp.int32))
    ordinal = jax.random.randint(key, (count,), 0, cumulative[-1])
    flat = jnp.searchsorted(cumulative, ordinal, side="right")
    return blocks.rows[jnp.unravel_index(flat, blocks.weights.shape)]


@partial(jax.jit, static_argnames="count")
def _drawn(blocks: Blocks, key: Key[Array, ""], count: int) -> Float[Array, "R D"]:
    return _draw(blocks, key, count)


@partial(jax.jit, static_argnames="share")
def _reseed(rows: Float[Array, "R D"], running: Running, key: Key[Array, ""], *, share: float) -> Running:
    """Clusters that are empty, or below `share` of the biggest, restart with the smallest kept count.

    They restart at some of `rows`, drawn with probability proportional to the squared distance, as k-means++ does.
    """
    clusters = running.counts.shape[0]
    small = (running.counts == 0) | (running.counts < share * running.counts.max())
    _, distances = nearest(rows, running.centroids)
    noise = jax.random.gumbel(jax.random.fold_in(key, 1), distances.shape)
    _, far = jax.lax.top_k(jnp.log(distances) + noise, clusters)
    fresh = rows[far[jnp.maximum(jnp.cumsum(small) - 1, 0)]]
    kept_count = jnp.where(small, jnp.inf, running.counts).min()
    return Running(jnp.where(small[:, None], fresh, running.centroids), jnp.where(small, kept_count, running.counts))
