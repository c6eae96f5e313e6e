"""From logical axes to shardings, and from rows on a host to global arrays."""

import math
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from slm_jax.core.errors import require
from slm_jax.core.trees import flatten_by_path, map_by_path
from slm_jax.parallel.rules import ROW_AXES, RULES, Rules, spec_for


def unbox(tree: Any) -> Any:
    """`tree` without the boxes that `nn.with_logical_partitioning` put around its leaves."""
    return meta.unbox(tree)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The whole value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shardings_for(abstract: Any, mesh: Mesh | AbstractMesh, rules: str) -> Any:
    """Shardings in the shape of `unbox(abstract)`; a leaf without logical axes is replicated.

    `abstract` is what `jax.eval_shape` returns for an `init`, boxes included; `rules` names a table of `RULES`.
    """
    require(rules in RULES, "mesh.rules", rules, f"must be one of {sorted(RULES)}")
    table = RULES[rules]
    return jax.tree.map(
        lambda leaf: _leaf_sharding(leaf, mesh, table),
        abstract,
        is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata),
    )


def _leaf_sharding(leaf: Any, mesh: Mesh | AbstractMesh, rules: Rules) -> NamedSharding:
    if not isinstance(leaf, meta.AxisMetadata):
        return replicated(mesh)
    names, shape = leaf.names, leaf.value.shape  # type: ignore[attr-defined]
    require(len(names) == len(shape), "logical axes", names, f"must name each dimension of a weight of shape {shape}")
    return NamedSharding(mesh, spec_for(names, shape, mesh, rules))


def shardings_like(abstract: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of a tree that holds copies of `params` somewhere inside, such as an optimizer state.

    A leaf takes the sharding of the parameter whose path ends its own path when the shapes agree too (the averages
    of Adam); everything else (counters, factored moments) is replicated.
    """
    shapes, known = flatten_by_path(params), flatten_by_path(shardings)

    def pick(path: str, leaf: Any) -> NamedSharding:
        parts = path.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            if tail in known and shapes[tail].shape == leaf.shape:
                return known[tail]
        return replicated(mesh)

    return map_by_path(pick, abstract)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Abstract leaves that carry their sharding: what a restore needs."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the row axes: the devices along `sequence` and `tensor` hold the same rows."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def row_shards(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts the rows of a batch are cut."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


@lru_cache(maxsize=16)  # asked for at every step
def row_parts(mesh: Mesh) -> tuple[tuple[int, ...], int]:
    """(parts, number): into how many equal parts a batch is cut for reading, and which of them this process reads.

    They are as large as the mesh allows, and need not be neighbours: a mesh over a TPU slice follows the wires between
    the chips, and crosses the hosts as it likes. Processes whose devices hold the same rows read the same parts.
    """
    total = row_shards(mesh)
    rows: dict[int, set[int]] = {}
    for row, group in enumerate(mesh.devices.reshape(total, -1)):
        for device in group:
            rows.setdefault(device.process_index, set()).add(row)

    def fits(size: int) -> bool:
        """Whether every process has all or nothing of every part of `size` shards."""
        parts = [range(start, start + size) for start in range(0, total, size)]
        return all(len(mine.intersection(part)) in (0, size) for mine in rows.values() for part in parts)

    size = next(size for size in range(total, 0, -1) if total % size == 0 and fits(size))
    return tuple(sorted({row // size for row in rows[jax.process_index()]})), total // size


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from the rows that this host reads: those of its parts (see `row_parts`), one after the other.

    Raises `UserError` when the rows do not divide over the devices.
    """
    sharding = batch_sharding(mesh)
    parts, number = row_parts(mesh)
    local = len(parts) * row_shards(mesh) // number
    for name, value in batch.items():
        rule = f"every array of a batch has rows, and their number on a host must divide over its {local} shares"
        require(np.ndim(value) > 0 and len(value) % local == 0, f"batch[{name!r}] shape", np.shape(value), rule)
    return {name: _placed(value, sharding, parts, number) for name, value in batch.items()}


def _placed(rows: np.ndarray, sharding: NamedSharding, parts: tuple[int, ...], number: int) -> jax.Array:
    """The global array of which this host has the rows of `parts`."""
    size = len(rows) // len(parts)
    shape = (size * number, *rows.shape[1:])

    def shard(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(shape[0])
        before = parts.index(start // size) * size - start // size * size  # from the place in the batch to that here
        return rows[start + before : stop + before]

    return jax.make_array_from_callback(shape, sharding, shard)
