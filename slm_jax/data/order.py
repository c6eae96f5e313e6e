"""Which example comes when: seeded, reshuffled every epoch, by random access, the same on any number of hosts."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np

from slm_jax.core.errors import require


@runtime_checkable
class Source(Protocol):
    """Random access to examples; a Grain data source, a TFDS data source and `RecordSource` are such."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int) -> dict[str, Any]: ...


class Key(NamedTuple):
    """One example in one epoch: the number of its source, the epoch, its position in the source."""

    source: int
    epoch: int
    position: int


class Mixture:
    """Sources with weights. Weights are shares of examples; without them every example counts alike."""

    def __init__(self, sources: Source | Sequence[Source] | Sequence[tuple[Source, float]]) -> None:
        pairs = _pairs(sources)
        require(bool(pairs), "sources", len(pairs), "at least one source")
        self.sources = [source for source, _ in pairs]
        self.sizes = [len(source) for source in self.sources]
        self.weights = [float(weight) for _, weight in pairs]
        self._starts = np.cumsum([0, *self.sizes])
        for number, (size, weight) in enumerate(zip(self.sizes, self.weights, strict=True)):
            require(size > 0, f"length of source {number}", size, "a source needs at least one example")
            require(weight > 0, f"weight of source {number}", weight, "weights are above 0")

    def example(self, key: Key) -> int:
        """Position in the sources laid end to end: what a batch names as `example`."""
        return int(self._starts[key.source]) + key.position


class EpochOrder:
    """A permutation of `count` places per epoch; the last few epochs are kept.

    Grain's own shuffle needs no memory but takes 0.2 ms per example at 200 examples and 7 ms at 3 (it walks cycles of
    a 16-bit domain), and small buckets are common. Raw bits of PCG64 are sorted because NumPy promises to keep them,
    but not `permutation`, the same in later versions.
    """

    def __init__(self, count: int, seeds: tuple[int, ...]) -> None:
        self._count = count
        self._seeds = seeds
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, epoch: int) -> np.ndarray:
        """The places in the order of `epoch`."""
        with self._lock:
            if epoch not in self._epochs:
                bits = np.random.PCG64((*self._seeds, epoch)).random_raw(self._count)
                self._epochs[epoch] = np.argsort(bits, kind="stable")
                while len(self._epochs) > 4:  # shards of a packed run may be in neighbouring epochs
                    del self._epochs[next(iter(self._epochs))]
            return self._epochs[epoch]


def one_order(members: np.ndarray, source: int, seeds: tuple[int, ...]) -> grain.MapDataset:
    """Keys of the `members` (positions) of one source: each once per epoch, shuffled anew each epoch."""
    count = len(members)
    order = EpochOrder(count, (*seeds, source))

    def key(place: int, _: int) -> Key:  # Grain counts places on through the epochs
        epoch, within = divmod(place, count)
        return Key(source, epoch, int(members[order(epoch)[within]]))

    return grain.MapDataset.source(range(count)).map_with_index(key)


def mixed(orders: Sequence[grain.MapDataset], weights: Sequence[float]) -> grain.MapDataset:
    """Interleave endless orders in a fixed pattern with the given shares."""
    return orders[0] if len(orders) == 1 else grain.MapDataset.mix(orders, weights=weights)


def example_rng(seed: int, key: Key) -> np.random.Generator:
    """The random numbers of one example in one epoch: the same on whatever host and after whatever restart."""
    return np.random.default_rng((seed, *key))


def _pairs(sources: Any) -> list[tuple[Source, float]]:
    if not isinstance(sources, list | tuple) or (sources and isinstance(sources[0], dict)):
        return [(sources, 1.0)]  # one source; a plain list of examples is one too
    if all(isinstance(item, tuple) for item in sources):
        return list(sources)
    return [(source, float(max(len(source), 1))) for source in sources]
