"""Arrays that are read when they are asked for: every device gets its own share, the host never holds a whole leaf.

What is held at a time is one layer of a stacked leaf, or one device's share of any other. Of a leaf that was stored in
one piece, that piece is held, too: no less of it can be read.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from slm_jax.checkpoints.streamed import CHUNK_BYTES, StoredArray
from slm_jax.core.trees import flatten_by_path

Index = tuple[slice, ...]
Part = Callable[[int | None], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class LazyArray:
    """An array of `shape` whose values are read by `part` and come as `dtype`; a leaf to JAX's trees.

    `part(None)` gives all of it, or with `layered` `part(i)` the entry i on axis 0, as something that can be cut (an
    array on a memory map, a stored array) and is read no further than that.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    part: Part
    layered: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, index: Index) -> np.ndarray:
        return self.reader()(index)

    def reader(self) -> Callable[[Index], np.ndarray]:
        """Reads what an index (one slice per axis) asks for, into an array of its own; holds the part it read last."""
        part = lru_cache(maxsize=1)(self.part)

        def read(index: Index) -> np.ndarray:
            spans = [range(*cut.indices(size)) for cut, size in zip(index, self.shape, strict=True)]
            inside = tuple(
                slice(span.start, span.stop) for span in spans
            )  # a stored array takes no bounds beyond its own
            found = np.empty([len(span) for span in spans], self.dtype)
            if not self.layered:
                found[...] = np.asarray(part(None)[inside])
                return found
            for row, entry in enumerate(spans[0]):
                found[row] = np.asarray(part(entry)[inside[1:]])
            return found

        return read

    def runs(self) -> Iterator[np.ndarray]:
        """All values in the order of rows, a layer or `CHUNK_BYTES` at a time."""
        if not self.shape:
            yield np.asarray(self)
            return
        read, row = self.reader(), prod(self.shape[1:]) * self.dtype.itemsize
        rows = 1 if self.layered else max(1, CHUNK_BYTES // max(row, 1))
        for start in range(0, self.shape[0], rows):
            yield read((slice(start, start + rows), *[slice(None)] * (self.ndim - 1)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.reader()((slice(None),) * self.ndim), dtype)


def lazy(leaf: Any, dtype: Any = None) -> LazyArray:
    """`leaf` (an array, a stored or a lazy one) as a `LazyArray` whose values come as `dtype` (None: its own)."""
    wanted = np.dtype(leaf.dtype if dtype is None else dtype)
    if isinstance(leaf, LazyArray):
        return dataclasses.replace(leaf, dtype=wanted)
    if isinstance(leaf, StoredArray):
        return LazyArray(tuple(leaf.shape), wanted, _stored_part(leaf), leaf.parts_apart)
    return LazyArray(tuple(leaf.shape), wanted, lambda _: leaf)


def _stored_part(leaf: StoredArray) -> Part:
    def part(entry: int | None) -> Any:
        return leaf.opened(held=True) if entry is None else leaf[entry]

    return part


def load_part(tree: Any, shardings: Any, dtype: Any = None) -> Any:
    """The arrays of a tree of lazy leaves on the devices of `shardings` (one for all, or a tree of the same shape).

    Arrays that are there already are only laid out. `dtype`: what the values are turned into, None leaves each leaf's.
    """
    if isinstance(shardings, Sharding):
        return jax.tree.map(lambda leaf: load_leaf(leaf, shardings, dtype), tree)
    return jax.tree.map(lambda leaf, sharding: load_leaf(leaf, sharding, dtype), tree, shardings)


def load_leaf(leaf: Any, sharding: Sharding, dtype: Any = None, most: int = CHUNK_BYTES) -> jax.Array:
    """One array on the devices of `sharding`; a stacked one of more than `most` bytes is put there layer by layer."""
    if not isinstance(leaf, LazyArray | StoredArray):
        return jax.device_put(leaf if dtype is None else jnp.asarray(leaf, dtype), sharding)
    source = lazy(leaf, dtype)
    whole_axis = source.ndim > 1 and sharding.shard_shape(source.shape)[0] == source.shape[0]
    if source.layered and whole_axis and source.nbytes > most:
        return _layer_by_layer(source, sharding)
    return _assembled(source.shape, sharding, source.reader())


def _layer_by_layer(source: LazyArray, sharding: Sharding) -> jax.Array:
    """The host holds one layer; the array on the devices is filled in place."""
    empty, put = _filling(source.shape, source.dtype, sharding)
    read, array = source.reader(), empty()
    for layer in range(source.shape[0]):

        def read_layer(index: Index, layer: int = layer) -> np.ndarray:
            return read((slice(layer, layer + 1), *index[1:]))

        array = put(array, _assembled((1, *source.shape[1:]), sharding, read_layer), layer)
        array.block_until_ready()  # or the host would run ahead and hold many
    return array


@lru_cache(maxsize=64)  # a model has few shapes of leaves
def _filling(shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> tuple[Any, Any]:
    """(an array of zeros, one that puts a layer into it)."""
    empty = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)
    put = jax.jit(
        lambda array, piece, layer: jax.lax.dynamic_update_slice_in_dim(array, piece, layer, 0),
        donate_argnums=0,
        out_shardings=sharding,
    )
    return empty, put


def _assembled(shape: tuple[int, ...], sharding: Sharding, read: Callable[[Index], np.ndarray]) -> jax.Array:
    """The array of which each device here gets its share; equal shares are read once, one share after the other."""
    holders: dict[str, tuple[Index, list[Any]]] = {}
    places: Any = sharding.addressable_devices_indices_map(shape)
    for device, index in places.items():
        holders.setdefault(str(index), (index, []))[1].append(device)
    shares = []
    for index, devices in holders.values():
        share = read(index)
        placed = [jax.device_put(share, device) for device in devices]
        jax.block_until_ready(placed)
        shares += placed
    return jax.make_array_from_single_device_arrays(shape, sharding, shares)


def part_hash(params: Any) -> str:
    """16 hex digits over names, shapes and values (as float32) of all leaves, lazy or not, read in runs.

    Of lazy leaves the values count as their source holds them: the same weights in any form of file, and loaded in
    whatever dtype, give the same.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_by_path(params).items()):
        source = lazy(leaf, np.float32)
        digest.update(f"{path} {source.shape or (1,)}".encode())
        for run in source.runs():
            digest.update(np.ascontiguousarray(run).data)
    return digest.hexdigest()[:16]
