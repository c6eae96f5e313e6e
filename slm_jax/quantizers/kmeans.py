"""k-means over all devices: k-means++ start, full or mini-batch, empty clusters re-seeded.

Rows may be a numpy array, or a JAX array sharded over its first axis: the same code then runs over all devices of
that sharding, and the per-device sums meet once per pass. A numpy array that is too large for the devices stays where
it is (`quantizers.kmeans_rows`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.quantizers.kmeans_rows import Blocks, DeviceRows, HostRows, Place, Rows, Running
from slm_jax.quantizers.kmeans_start import kmeans_plus_plus
from slm_jax.quantizers.nearest import AnyArray, assign

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
    empty ones always are. `device_rows`: of a NumPy array with more rows, only so many are on the devices at once.

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
    device_rows: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("clusters", "iterations", "patience", "starts"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.batch is None or self.batch >= 1, "batch", self.batch, "must be None or at least 1")
        require(self.start_rows >= self.clusters, "start_rows", self.start_rows, "must not be below `clusters`")
        require(self.candidates >= 0, "candidates", self.candidates, "must not be negative")
        require(self.tolerance >= 0, "tolerance", self.tolerance, "must not be negative")
        require(0 <= self.reassignment < 1, "reassignment", self.reassignment, "must be in [0, 1)")
        require(self.device_rows >= self.start_rows, "device_rows", self.device_rows, "must not be below `start_rows`")

    def make(self) -> Callable[..., "KMeansFit"]:
        """`fit(features, progress=None) -> KMeansFit` with these settings."""
        return partial(fit_kmeans, self)


class KMeansFit(NamedTuple):
    """Result of a fit. `inertia`: summed squared distance of all rows to their centroids; `counts`: rows of each."""

    centroids: Float[Array, "K D"]
    inertia: float
    counts: Int[Array, "K"]
    passes: int


def fit_kmeans(
    config: KMeansConfig,
    features: Shaped[AnyArray, "T D"],
    progress: Progress | None = None,
    place: Place = jnp.asarray,
) -> KMeansFit:
    """Centroids of `features`; all rows count alike.

    `progress(pass, inertia)` is called after every pass. `place` puts rows of a NumPy array on the devices. Raises
    `UserError` when there are fewer rows than clusters.
    """
    require(features.ndim == 2, "features", features.shape, "must be [T, D]")
    require(features.shape[0] >= config.clusters, "clusters", config.clusters, f"more than the {len(features)} rows")
    rows: Rows
    if isinstance(features, np.ndarray) and len(features) > config.device_rows:
        rows = HostRows(features, config.device_rows, place)
    else:
        rows = DeviceRows(Blocks.of(place(features) if isinstance(features, np.ndarray) else features))
    fit_once = _lloyd if config.batch is None else _mini_batch
    fits = [fit_once(config, rows, _start(config, features, s), s, progress) for s in range(config.starts)]
    return min(fits, key=lambda fit: fit.inertia)


def _start(config: KMeansConfig, features: Shaped[AnyArray, "T D"], start: int) -> Float[Array, "K D"]:
    """k-means++ on a seeded sub-sample: the same rows whatever the sharding."""
    rng = np.random.default_rng((config.seed, start))
    total = features.shape[0]
    picked = np.sort(rng.choice(total, min(total, config.start_rows), replace=False))
    sample = np.asarray(jnp.asarray(features)[picked] if isinstance(features, jax.Array) else features[picked])
    key = jax.random.fold_in(jax.random.key(config.seed), start)
    sample = jnp.asarray(sample, jnp.float32)
    return kmeans_plus_plus(sample, key, clusters=config.clusters, candidates=config.candidates)


def _lloyd(
    config: KMeansConfig, rows: Rows, centroids: Float[Array, "K D"], start: int, progress: Progress | None
) -> KMeansFit:
    limit = config.tolerance * rows.mean_variance()
    done = 0
    for done in range(1, config.iterations + 1):
        seen = rows.statistics(centroids)
        centroids, movement = rows.move(centroids, seen)
        if progress:
            progress(done, float(seen.inertia))
        if float(movement) <= limit:
            break
    return _finish(rows, centroids, done)


def _mini_batch(
    config: KMeansConfig, rows: Rows, centroids: Float[Array, "K D"], start: int, progress: Progress | None
) -> KMeansFit:
    assert config.batch is not None
    steps = max(1, rows.total // config.batch)
    key = jax.random.fold_in(jax.random.key(config.seed + 1), start)
    running = Running(centroids, jnp.zeros(config.clusters))
    watch = _Patience(config.patience, smoothing=min(1.0, 2 * config.batch / (rows.total + 1)))
    done = 0
    for done in range(1, config.iterations + 1):
        keys = jax.random.split(jax.random.fold_in(key, done), steps)
        running, distances = rows.mini_batches(running, keys, config.batch)
        if progress:
            progress(done, float(distances.mean()) * rows.total)
        if watch.is_over(np.asarray(distances)):
            break
        running = rows.reseed(running, jax.random.fold_in(keys[0], 1), config.reassignment, config.batch)
    return _finish(rows, running.centroids, done)


def _finish(rows: Rows, centroids: Float[Array, "K D"], passes: int) -> KMeansFit:
    """Inertia and counts of the centroids that are handed out, after a last try at clusters that lost all rows."""
    seen = rows.statistics(centroids)
    for _ in range(FILLING_ROUNDS):
        if bool((seen.counts > 0).all()):
            break
        centroids = rows.fill(centroids, seen)
        seen = rows.statistics(centroids)
    return KMeansFit(centroids, float(seen.inertia), seen.counts.astype(jnp.int32), passes)


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
