"""One finite pass over a source in few shapes, for encoding and extraction; results can be put back in order."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from slm_jax.core.errors import require
from slm_jax.data.order import Source

Item = TypeVar("Item")


def finite_batches(
    source: Source,
    lengths: tuple[int, ...],
    batch: int,
    fields: Sequence[str] = (),
    *,
    key: str = "samples",
    host: int = 0,
    hosts: int = 1,
) -> Iterator[dict[str, Any]]:
    """Every example once, each in a batch of the shortest of `lengths` that holds it.

    A batch has `key` `[B, N]` (for `samples` float32 in [-1, 1), also from int16; other keys keep their dtype; 0 where
    padded), `mask` `[B, N]`, `index` `[B]` int64 (-1 in an empty row), `valid` `[B]` and, for each of `fields`, the
    list of its values, None in empty rows. Only the last batch of a length has empty rows. Host h takes examples h,
    h + hosts, ... Raises `UserError` for an example longer than the last length.
    """
    increasing = all(a < b for a, b in pairwise(lengths))
    require(bool(lengths) and increasing, "lengths", lengths, "at least one, increasing")
    require(batch > 0, "batch", batch, "at least one row")
    require(0 <= host < hosts, "host", host, f"between 0 and {hosts - 1}")
    waiting: dict[int, list[tuple[int, dict[str, Any]]]] = {length: [] for length in lengths}
    for index in range(host, len(source), hosts):
        item = source[index]
        count = len(item[key])
        require(count <= lengths[-1], f"length of {key} of example {index}", count, f"at most {lengths[-1]}")
        length = next(length for length in lengths if length >= count)
        waiting[length].append((index, {name: item[name] for name in (key, *fields)}))
        if len(waiting[length]) == batch:
            yield _stack(waiting[length], key, length, batch)
            waiting[length] = []
    for length, rest in waiting.items():
        if rest:
            yield _stack(rest, key, length, batch)


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each once the next has been made.

    When items are results that devices still compute, the next batch is read and sent while they do.
    """
    rest = iter(items)
    for held in rest:
        for following in rest:
            yield held
            held = following
        yield held


def in_order(rows: Iterable[tuple[int, Any]], count: int) -> Iterator[Any]:
    """Values of `(index, value)` pairs by ascending index, each as soon as all before it have come.

    Empty rows (index -1) are skipped. Raises `ValueError` when an index of `range(count)` is missing or comes twice.
    """
    waiting: dict[int, Any] = {}
    following = 0
    for index, value in rows:
        if index < 0:
            continue
        if index in waiting or index < following:
            raise ValueError(f"index {index} came twice")
        waiting[int(index)] = value
        while following in waiting:
            yield waiting.pop(following)
            following += 1
    if following != count or waiting:
        raise ValueError(f"index {following} of {count} never came")


def float_samples(samples: np.ndarray) -> np.ndarray:
    """Samples as float32: int16 becomes [-1, 1), floats stay as they are."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768
    return samples.astype(np.float32, copy=False)


def _stack(rows: list[tuple[int, dict[str, Any]]], key: str, length: int, batch: int) -> dict[str, Any]:
    values = [float_samples(item[key]) if key == "samples" else np.asarray(item[key]) for _, item in rows]
    padded = np.zeros((batch, length, *values[0].shape[1:]), values[0].dtype)
    mask = np.zeros((batch, length), bool)
    for row, value in enumerate(values):
        padded[row, : len(value)] = value
        mask[row, : len(value)] = True
    empty = batch - len(rows)
    index = np.asarray([index for index, _ in rows] + [-1] * empty, np.int64)
    fields = {name: [item[name] for _, item in rows] + [None] * empty for name in rows[0][1] if name != key}
    return {**fields, key: padded, "mask": mask, "index": index, "valid": index >= 0}
