"""Several examples in one row, over fixed virtual shards so that rows do not depend on the number of hosts."""

from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.data.order import Key, Mixture, mixed, one_order


class PackingConfig(Config):
    """First-fit packing into rows of `length`, with `bins` rows open at a time in each virtual shard.

    All `keys` have the same first axis. A batch holds them as `[B, length]` (0 where empty) with `segment_ids`
    (1, 2, ... per example, 0 where empty), `positions` (from 0 in each example) and `mask` (True = real). More bins
    waste less room and mix a little across epochs.
    """

    length: int
    keys: tuple[str, ...] = ("ids",)
    bins: int = 4

    def __post_init__(self) -> None:
        require(self.length > 0, "length", self.length, "at least 1")
        require(self.bins > 0, "bins", self.bins, "at least 1")
        require(bool(self.keys), "keys", self.keys, "at least one key")


def packed_iterator(
    mixture: Mixture,
    load: Callable[[Key], dict[str, np.ndarray]],
    config: PackingConfig,
    shards: Sequence[int],
    all_shards: int,
    rows: int,
    seed: int,
    prefetch: int,
) -> grain.DatasetIterator:
    """Batches of `rows` rows from each shard of `shards`; the state is `{shard number: state}`.

    Shard v of V owns positions v, v + V, ... of each epoch's order. An epoch ends in each shard on its own: with
    shards of unequal size the smaller ones begin the next epoch earlier. Of a source with fewer examples than there
    are shards so many epochs are dealt out at once that every shard gets one.
    """
    orders = [
        _enough(one_order(np.arange(size), source, (seed,)), all_shards) for source, size in enumerate(mixture.sizes)
    ]

    def shard_rows(shard: int) -> grain.IterDataset:
        mine = [order[shard::all_shards].repeat() for order in orders]  # slices of one shuffle: disjoint in each epoch
        examples = mixed(mine, mixture.weights).map(lambda key: _checked(load(key), key, mixture, config))
        return _packed(examples, config, seed + shard)

    parts = {str(shard): shard_rows(shard) for shard in shards}
    return grain.experimental.ThreadPrefetchIterDataset(_Shards(parts, rows), prefetch_buffer_size=prefetch).__iter__()


def _enough(order: grain.MapDataset, shards: int) -> grain.MapDataset:
    return order if len(order) >= shards else order.repeat(-(-shards // len(order)))


def _packed(examples: grain.MapDataset, config: PackingConfig, seed: int) -> grain.IterDataset:
    # batches are prefetched as a whole, by one thread; threads per shard would only multiply them
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return grain.experimental.FirstFitPackIterDataset(
        examples.to_iter_dataset(options),
        length_struct=dict.fromkeys(config.keys, config.length),
        num_packing_bins=config.bins,
        seed=seed,
        meta_features=("example",),
    )


def _checked(example: dict, key: Key, mixture: Mixture, config: PackingConfig) -> dict[str, Any]:
    shapes = {name: np.shape(value) for name, value in example.items()}
    lengths = {shape[:1] for shape in shapes.values()}
    if shapes.keys() != set(config.keys) or len(lengths) != 1 or lengths == {()}:
        raise UserError(f"example {key.position} is {shapes}: packing needs equally long {config.keys}, nothing else")
    ((length,),) = lengths
    rule = f"example {key.position} of source {key.source} needs 1 to {config.length} entries to be packed"
    require(0 < length <= config.length, "length", length, rule)
    return {**example, "example": mixture.example(key)}


class _Shards(grain.IterDataset):
    """Batches out of several packed shards: `rows` rows of each, in the order of the shards."""

    def __init__(self, parts: dict[str, grain.IterDataset], rows: int) -> None:
        super().__init__(list(parts.values()))
        self._parts = parts
        self._rows = rows

    def __iter__(self) -> grain.DatasetIterator:
        return _ShardsIterator({name: iter(part) for name, part in self._parts.items()}, self._rows)


class _ShardsIterator(grain.DatasetIterator):
    def __init__(self, parts: dict[str, grain.DatasetIterator], rows: int) -> None:
        super().__init__(list(parts.values()))
        self._named = parts
        self._rows = rows

    def __next__(self) -> dict[str, np.ndarray]:
        return _stack([next(part) for part in self._named.values() for _ in range(self._rows)])

    def get_state(self) -> dict[str, Any]:
        return {name: part.get_state() for name, part in self._named.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, part in self._named.items():
            part.set_state(state[name])


def _stack(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows with Grain's key names to a batch with ours; equal keys share one segmentation."""
    names = [name for name in rows[0] if f"{name}_segment_ids" in rows[0]]
    batch = {name: np.stack([row[name] for row in rows]) for name in names}
    segments = np.stack([row[f"{names[0]}_segment_ids"] for row in rows])
    positions = np.stack([row[f"{names[0]}_positions"] for row in rows])
    example = np.asarray([row["example"][0] for row in rows], np.int64)
    return batch | {"segment_ids": segments, "positions": positions, "mask": segments > 0, "example": example}
