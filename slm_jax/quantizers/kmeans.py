"""k-means over all devices: k-means++ start, full or mini-batch, empty clusters re-seeded.

Rows may be a numpy array, or a JAX array sharded over its first axis: the same code then runs over all devices of
that sharding, and the per-device sums meet once per pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.quantizers.kmeans_start import kmeans_plus_plus
from slm_jax.quantizers.nearest import BLOCK_ROWS, AnyArray, assign, nearest

__all__ = ["KMeansConfig", "KMeansFit", "assign", "fit_kmeans"]

FILLING_ROUNDS = 3  # with fewer distinct rows than clusters some must stay empty
Progress = Callable[[int, float], None]


class KMeansConfig(Config):
    """How units are learnt.

    `batch` None: Lloyd's algorithm over all rows; a number: mini-batch updates of that many rows (Sculley 2010).
    `iterations`: passes over the rows at most. `tolerance`: stop when the summed squared movement of the centroids
    falls below this share of the mean variance per dimension (Lloyd). `patience`: stop after that many mini-batches
    without a lower smoothed distance. `starts`: independent fits, the one with the lowest inertia wins.
    `start_rows`: size of the sub-sample of the k-means++ start; `candidates`: rows tried per draw, 0 for 2 + ln K.
    `reassignment`: mini-batch clusters with fewer rows than this share of the biggest one are re-seeded once a pass;
    empty ones always are.

    HuBERT's own recipe is batch 10_000, iterations 100, patience 100, starts 20, reassignment 0.
    """

    clusters: int = 100
    batch: int | None = None
    iterations: int = 100
    tolerance: float = 1e-4
    patience: int = 100
    starts: int = 1
    start_rows: int = 20_000
    candidates: int = 0
    reassignment: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clusters", "iterations", "patience", "starts"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.batch is None or self.batch >= 1, "batch", self.batch, "must be None or at least 1")
        require(self.start_rows >= self.clusters, "start_rows", self.start_rows, "must not be below `clusters`")
        require(self.candidates >= 0, "candidates", self.candidates, "must not be negative")
        require(self.tolerance >= 0, "tolerance", self.tolerance, "must not be negative")
        require(0 <= self.reassignment < 1, "reassignment", self.reassignment, "must be in [0, 1)")

    def make(self) -> Callable[..., "KMeansFit"]:
        """`fit(features, progress=None) -> KMeansFit` with these settings."""
        return partial(fit_kmeans, self)


class KMeansFit(NamedTuple):
    """Result of a fit. `inertia`: summed squared distance of all rows to their centroids; `counts`: rows of each."""

    centroids: Float[Array, "K D"]
    inertia: float
    counts: Int[Array, "K"]
    passes: int


def fit_kmeans(config: KMeansConfig, features: Shaped[AnyArray, "T D"], progress: Progress | None = None) -> KMeansFit:
    """Centroids of `features`; all rows count alike.

    `progress(pass, inertia)` is called after every pass. Raises `UserError` when there are fewer rows than clusters.
    """
    require(features.ndim == 2, "features", features.shape, "must be [T, D]")
    require(features.shape[0] >= config.clusters, "clusters", config.clusters, f"more than the {len(features)} rows")
    blocks = Blocks.of(features)
    fit_once = _lloyd if config.batch is None else _mini_batch
    fits = [fit_once(config, blocks, _start(config, features, s), s, progress) for s in range(config.starts)]
    return min(fits, key=lambda fit: fit.inertia)


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


class _Pass(NamedTuple):
    """What one pass over the rows tells: per-cluster sums and counts, inertia, and every row's distance."""

    sums: Float[Array, "K D"]
    counts: Float[Array, "K"]
    inertia: Float[Array, ""]
    distances: Float[Array, "C P R"]


def _start(config: KMeansConfig, features: Shaped[AnyArray, "T D"], start: int) -> Float[Array, "K D"]:
    """k-means++ on a seeded sub-sample: the same rows whatever the sharding."""
    rng = np.random.default_rng((config.seed, start))
    total = features.shape[0]
    picked = np.sort(rng.choice(total, min(total, config.start_rows), replace=False))
    sample = np.asarray(jnp.asarray(features)[picked] if isinstance(features, jax.Array) else features[picked])
    key = jax.random.fold_in(jax.random.key(config.seed), start)
    sample = jnp.asarray(sample, jnp.float32)
    return kmeans_plus_plus(sample, key, clusters=config.clusters, candidates=config.candidates)


@jax.jit
def _statistics(blocks: Blocks, centroids: Float[Array, "K D"]) -> _Pass:
    shards, clusters, width = blocks.rows.shape[1], *centroids.shape

    def one_chunk(carry: tuple[Array, Array, Array], block: Blocks) -> tuple[tuple[Array, Array, Array], Array]:
        ids, distances = nearest(block.rows, centroids)
        sums, counts = _sum_by_cluster(block, ids, clusters)
        distances = distances * block.weights
        return (carry[0] + sums, carry[1] + counts, carry[2] + distances.sum(-1)), distances

    zero = (jnp.zeros((shards, clusters, width)), jnp.zeros((shards, clusters)), jnp.zeros((shards,)))
    (sums, counts, inertia), distances = jax.lax.scan(one_chunk, zero, blocks)
    return _Pass(sums.sum(0), counts.sum(0), inertia.sum(), distances)


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
def _move(blocks: Blocks, centroids: Float[Array, "K D"], seen: _Pass) -> tuple[Array, Array]:
    """New centroids, empty ones at the rows farthest from theirs, and the summed squared movement."""
    empty = seen.counts == 0
    means = seen.sums / jnp.maximum(seen.counts, 1)[:, None]
    moved = jax.lax.cond(
        empty.any(), lambda: jnp.where(empty[:, None], _farthest(blocks, seen.distances, empty), means), lambda: means
    )
    return moved, jnp.square(moved - centroids).sum()


def _farthest(blocks: Blocks, distances: Float[Array, "C P R"], empty: Bool[Array, "K"]) -> Float[Array, "K D"]:
    """Row for every cluster: the j-th empty cluster gets the j-th farthest row."""
    wanted = min(empty.shape[0], distances.size)
    _, flat = jax.lax.top_k(distances.reshape(-1), wanted)
    rank = jnp.clip(jnp.cumsum(empty) - 1, 0, wanted - 1)
    return blocks.rows[jnp.unravel_index(flat[rank], distances.shape)]


def _lloyd(
    config: KMeansConfig, blocks: Blocks, centroids: Float[Array, "K D"], start: int, progress: Progress | None
) -> KMeansFit:
    limit = config.tolerance * float(_mean_variance(blocks))
    done = 0
    for done in range(1, config.iterations + 1):
        seen = _statistics(blocks, centroids)
        centroids, movement = _move(blocks, centroids, seen)
        if progress:
            progress(done, float(seen.inertia))
        if float(movement) <= limit:
            break
    return _finish(blocks, centroids, done)


@jax.jit
def _mean_variance(blocks: Blocks) -> Float[Array, ""]:
    count = blocks.weights.sum()
    weights = blocks.weights[..., None]
    mean = (blocks.rows * weights).sum((0, 1, 2)) / count
    return (jnp.square(blocks.rows - mean) * weights).sum((0, 1, 2)).mean() / count


def _finish(blocks: Blocks, centroids: Float[Array, "K D"], passes: int) -> KMeansFit:
    """Inertia and counts of the centroids that are handed out, after a last try at clusters that lost all rows."""
    seen = _statistics(blocks, centroids)
    for _ in range(FILLING_ROUNDS):
        if bool((seen.counts > 0).all()):
            break
        centroids = _fill(blocks, centroids, seen)
        seen = _statistics(blocks, centroids)
    return KMeansFit(centroids, float(seen.inertia), seen.counts.astype(jnp.int32), passes)


@jax.jit
def _fill(blocks: Blocks, centroids: Float[Array, "K D"], seen: _Pass) -> Float[Array, "K D"]:
    """Empty clusters at the rows farthest from theirs, the others as they are."""
    empty = seen.counts == 0
    return jnp.where(empty[:, None], _farthest(blocks, seen.distances, empty), centroids)


class _Running(NamedTuple):
    """State of mini-batch k-means: centroids and how many rows each has seen."""

    centroids: Float[Array, "K D"]
    counts: Float[Array, "K"]


def _mini_batch(
    config: KMeansConfig, blocks: Blocks, centroids: Float[Array, "K D"], start: int, progress: Progress | None
) -> KMeansFit:
    total = int(blocks.weights.sum())
    steps = max(1, total // config.batch)
    key = jax.random.fold_in(jax.random.key(config.seed + 1), start)
    running = _Running(centroids, jnp.zeros(config.clusters))
    watch = _Patience(config.patience, smoothing=min(1.0, 2 * config.batch / (total + 1)))
    done = 0
    for done in range(1, config.iterations + 1):
        keys = jax.random.split(jax.random.fold_in(key, done), steps)
        running, distances = _mini_batch_pass(blocks, running, keys, batch=config.batch)
        if progress:
            progress(done, float(distances.mean()) * total)
        if watch.is_over(np.asarray(distances)):
            break
        key_of_pass = jax.random.fold_in(keys[0], 1)
        running = _reseed(blocks, running, key_of_pass, share=config.reassignment, batch=config.batch)
    return _finish(blocks, running.centroids, done)


@partial(jax.jit, static_argnames="batch")
def _mini_batch_pass(
    blocks: Blocks, running: _Running, keys: Key[Array, "R"], *, batch: int
) -> tuple[_Running, Float[Array, "R"]]:
    """One update per key; also the mean distance of every batch before its update."""

    def one_batch(running: _Running, key: Key[Array, ""]) -> tuple[_Running, Float[Array, ""]]:
        rows = _draw(blocks, key, batch)
        ids, distances = nearest(rows, running.centroids)
        drawn = Blocks(rows[None], jnp.ones((1, batch)))
        sums, fresh = (part[0] for part in _sum_by_cluster(drawn, ids[None], running.counts.shape[0]))
        counts = running.counts + fresh
        centroids = (running.centroids * running.counts[:, None] + sums) / jnp.maximum(counts, 1)[:, None]
        return _Running(jnp.where(fresh[:, None] > 0, centroids, running.centroids), counts), distances.mean()

    return jax.lax.scan(one_batch, running, keys)


def _draw(blocks: Blocks, key: Key[Array, ""], count: int) -> Float[Array, "R D"]:
    """`count` real rows, drawn with replacement; padding is never drawn because its cumulative weight is flat."""
    cumulative = jnp.cumsum(blocks.weights.reshape(-1).astype(jnp.int32))
    ordinal = jax.random.randint(key, (count,), 0, cumulative[-1])
    flat = jnp.searchsorted(cumulative, ordinal, side="right")
    return blocks.rows[jnp.unravel_index(flat, blocks.weights.shape)]


@partial(jax.jit, static_argnames=("share", "batch"))
def _reseed(blocks: Blocks, running: _Running, key: Key[Array, ""], *, share: float, batch: int) -> _Running:
    """Clusters that are empty, or below `share` of the biggest, restart with the smallest kept count.

    They restart at rows of a batch drawn with probability proportional to the squared distance, as k-means++ does.
    """
    clusters = running.counts.shape[0]
    small = (running.counts == 0) | (running.counts < share * running.counts.max())
    rows = _draw(blocks, key, max(batch, clusters))
    _, distances = nearest(rows, running.centroids)
    noise = jax.random.gumbel(jax.random.fold_in(key, 1), distances.shape)
    _, far = jax.lax.top_k(jnp.log(distances) + noise, clusters)
    fresh = rows[far[jnp.maximum(jnp.cumsum(small) - 1, 0)]]
    kept_count = jnp.where(small, jnp.inf, running.counts).min()
    return _Running(jnp.where(small[:, None], fresh, running.centroids), jnp.where(small, kept_count, running.counts))


class _Patience:
    """Stops when the exponentially smoothed distance has not improved over `limit` batches."""

    def __init__(self, limit: int, smoothing: float) -> None:
        self.limit, self.smoothing = limit, smoothing
        self.average: float | None = None
        self.best, self.waited = float("inf"), 0

    def is_over(self, distances: Any) -> bool:
        """Take the distances of one pass, batch by batch."""
        for distance in distances.tolist():
            previous = distance if self.average is None else self.average
            self.average = previous + self.smoothing * (distance - previous)
            improved = self.average < self.best
            self.best, self.waited = min(self.best, self.average), 0 if improved else self.waited + 1
        return self.waited >= self.limit
