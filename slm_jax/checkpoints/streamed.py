"""Arrays that are larger than the memory: made while they are written, read a part at a time.

Orbax writes a leaf of a tree in one piece. A `StreamedArray` in its place is asked for its parts one after the other,
and a `StoredArray` reads the parts of a leaf that is on disk. Both are leaves to JAX's trees.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from slm_jax.core.paths import AnyPath, uri

CHUNK_BYTES = 64 * 2**20
"""Parts are stored in chunks of at most this size, the least that can be read alone."""


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedArray:
    """An array of `shape` and `dtype` whose values `parts()` gives: (entry on axis 0, array), or (None, all of it).

    `shard`: the shape of what one device is going to hold; every device then reads its own bytes and no others.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Callable[[], Iterator[tuple[int | None, np.ndarray]]]
    layered: bool = False
    shard: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of values, which Orbax asks for."""
        return prod(self.shape)

    @property
    def chunk(self) -> tuple[int, ...]:
        """A part of one device's share: on axis 0 one layer, or as many rows as fit into `CHUNK_BYTES`."""
        shape = self.shape if self.shard is None else self.shard
        if not shape:
            return shape
        row = prod(shape[1:]) * self.dtype.itemsize
        rows = 1 if self.layered else max(1, CHUNK_BYTES // max(row, 1))
        if shape[0] < self.shape[0]:  # chunks must not reach over the ends of shares
            rows = shape[0]
        return min(shape[0], rows), *shape[1:]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredArray:
    """A leaf of a checkpoint's item: `array[i]` reads one entry of axis 0, `np.asarray(array)` all."""

    item: AnyPath
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, index: int) -> np.ndarray:
        return self._opened[index].read().result()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._opened.read().result(), dtype)

    @property
    def chunk(self) -> tuple[int, ...]:
        """The shape of the least that can be read without the bytes of others."""
        return tuple(self._opened.chunk_layout.read_chunk.shape) if self.shape else ()

    @property
    def parts_apart(self) -> bool:
        """Whether the entries of axis 0 can be read alone."""
        return self.chunk[:1] == (1,)

    @cached_property
    def _opened(self) -> Any:
        place = {"driver": "ocdbt", "base": uri(self.item), "path": self.name}
        return ts.open({"driver": "zarr", "kvstore": place}, open=True, read=True).result()

    def opened(self, held: bool = False) -> "Cut":
        """What can be cut: `opened()[1:3, :, 4:]` reads that. `held` keeps the chunks it read until it is let go."""
        if not held:
            return Cut(self._opened)
        place = {"driver": "ocdbt", "base": uri(self.item), "path": self.name}
        room = ts.Context({"cache_pool": {"total_bytes_limit": prod(self.chunk) * self.dtype.itemsize * 2 + 2**20}})
        spec = {"driver": "zarr", "kvstore": place, "recheck_cached_data": "open"}
        return Cut(ts.open(spec, open=True, read=True, context=room).result())


class Cut:
    """A stored array that is read where it is cut."""

    def __init__(self, opened: Any) -> None:
        self.store = opened

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.store[index].read().result()


def stored_array(item: AnyPath, path: str, shape: Sequence[int], dtype: str) -> StoredArray:
    """The leaf at `path` of an item, as Orbax names it."""
    return StoredArray(item, path.replace("/", "."), tuple(shape), np.dtype(dtype))


class StreamedWriters:
    """Orbax's handlers of trees whose leaves are all `StreamedArray`; what they write anyone reads as NumPy arrays."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.threads: set[threading.Thread] = set()

    def handler(self) -> ocp.PyTreeCheckpointHandler:
        """A new one, for one item of one checkpoint."""
        registry = ocp.type_handlers.create_type_handler_registry(
            (StreamedArray, _StreamedHandler(self)),
            (jax.Array, ocp.type_handlers.ArrayHandler()),  # unused, but Orbax warns where it is missing
        )
        return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)

    def stop(self) -> None:
        """Let the threads that write end with the part at hand, and wait for them."""
        self.stopped.set()
        for thread in tuple(self.threads):
            threading.Thread.join(thread)  # Orbax's own join raises what happened in the thread


class _StreamedHandler(ocp.type_handlers.NumpyHandler):
    """Writes one part of one array at a time."""

    def __init__(self, writers: StreamedWriters) -> None:
        super().__init__(deepcopy_host_arrays=False)  # a copy is what must not be made
        self._writers = writers

    async def _open_and_write(self, value: Any, tspec: dict[str, Any], ts_context: Any) -> None:
        """Replaces the write of a whole array; `value` is a `StreamedArray`.

        Orbax starts these of all leaves at once in a thread of their own. They wait for nothing but the disk and never
        give way, so that one runs after the other; after a failure the rest end at once.
        """
        self._writers.threads.add(threading.current_thread())
        tspec["metadata"]["chunks"] = list(value.chunk)
        try:
            self._refuse_when_stopped()
            target = ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context).result()
            for entry, array in value.parts():
                self._refuse_when_stopped()
                place = target if entry is None else target[entry]
                place.write(array, can_reference_source_data_indefinitely=True).result()
        except BaseException:
            self._writers.stopped.set()
            raise

    def _refuse_when_stopped(self) -> None:
        if self._writers.stopped.is_set():
            raise asyncio.CancelledError  # Orbax takes this one without a traceback
