"""Length buckets: whole examples in few fixed shapes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.data.order import Key, Mixture


class BucketConfig(Config):
    """Each example goes to the shortest of `lengths` that holds it; a batch comes from one bucket.

    All `keys` have the same first axis. A batch holds them as `[B, bucket length]` (0 where padded) with `mask`
    (True = real), `segment_ids` (1 where real, 0 where padded) and `positions`, the same keys that packing gives.
    """

    lengths: tuple[int, ...]
    keys: tuple[str, ...] = ("ids",)

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in pairwise(self.lengths))
        require(bool(self.lengths) and increasing, "lengths", self.lengths, "at least one, increasing")
        require(bool(self.keys), "keys", self.keys, "at least one key")


def measure(mixture: Mixture, load: Callable[[Key], dict[str, np.ndarray]], config: BucketConfig) -> list[np.ndarray]:
    """Length of every example of every source, by making each once."""
    key = config.keys[0]
    return [
        np.asarray([len(load(Key(source, 0, position))[key]) for position in range(size)])
        for source, size in enumerate(mixture.sizes)
    ]


def bucket_members(mixture: Mixture, config: BucketConfig, lengths: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Positions of the examples, per bucket and source; raises `UserError` for one longer than the last bucket."""
    require(len(lengths) == len(mixture.sizes), "lengths", len(lengths), f"one array per source: {len(mixture.sizes)}")
    members: list[list[np.ndarray]] = [[] for _ in config.lengths]
    for source, (size, known) in enumerate(zip(mixture.sizes, lengths, strict=True)):
        require(len(known) == size, f"lengths of source {source}", len(known), f"one for each of {size} examples")
        longest = int(np.argmax(known))
        rule = f"buckets reach to {config.lengths[-1]} (example {longest} of source {source})"
        require(bool(known[longest] <= config.lengths[-1]), "length", int(known[longest]), rule)
        bucket_of = np.searchsorted(config.lengths, known)
        for bucket, positions in enumerate(members):
            positions.append(np.flatnonzero(bucket_of == bucket))
    return members


def pad_to_bucket(examples: list[dict[str, Any]], keys: list[Key], config: BucketConfig) -> list[dict[str, Any]]:
    """Examples of one bucket padded to its length, with `mask`, `segment_ids` and `positions`."""
    longest = max(len(example[config.keys[0]]) for example in examples)
    rule = f"buckets reach to {config.lengths[-1]}; the `lengths` given were too small"
    require(longest <= config.lengths[-1], "length", longest, rule)
    length = next(bucket for bucket in config.lengths if bucket >= longest)
    return [_padded(example, key, config, length) for example, key in zip(examples, keys, strict=True)]


def _padded(example: dict[str, Any], key: Key, config: BucketConfig, length: int) -> dict[str, Any]:
    real = {name: len(example[name]) for name in config.keys}
    if len(set(real.values())) != 1:
        raise UserError(f"example {key.position} has lengths {real}: keys of a bucket must be equally long")
    count = real[config.keys[0]]
    mask = np.arange(length) < count
    padded = {name: _pad_first_axis(example[name], length) for name in config.keys}
    positions = np.where(mask, np.arange(length), 0).astype(np.int32)
    return {**example, **padded, "mask": mask, "segment_ids": mask.astype(np.int32), "positions": positions}


def _pad_first_axis(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values, [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1))
