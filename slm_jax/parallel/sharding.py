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
def row_share(mesh: Mesh) -> tuple[int, int]:
    """(index, number) of the equal parts of every batch that processes read: which is this one's, how many there are.

    Processes whose devices hold the same rows read the same part. Raises `UserError` when the rows of a process are
    not one block, or blocks differ in size.
    """
    processes = {device.process_index for device in mesh.devices.flat}
    blocks = {process: _block(mesh, process) for process in processes}
    sizes = {len(block) for block in blocks.values()}
    starts = sorted({block.start for block in blocks.values()})
    regular = len(sizes) == 1 and all(start % min(sizes) == 0 for start in starts)
    rule = "the processes do not hold equal blocks of rows: put fewer devices on the inner axes"
    require(regular, "mesh", dict(mesh.shape), rule)
    return starts.index(blocks[jax.process_index()].start), len(starts)


@lru_cache(maxsize=16)
def _block(mesh: Mesh, process: int) -> range:
    """The row shards of the devices of one process."""
    devices = mesh.devices.reshape(row_shards(mesh), -1)
    mine = [row for row, group in enumerate(devices) if any(device.process_index == process for device in group)]
    block = range(mine[0], mine[-1] + 1)
    require(len(block) == len(mine), "rows of a process", mine, "must be one block")
    return block


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from the rows that this host reads (see `row_share`).

    Raises `UserError` when the rows do not divide over the devices.
    """
    sharding = batch_sharding(mesh)
    local, hosts = len(_block(mesh, jax.process_index())), row_share(mesh)[1]
    for name, value in batch.items():
        rule = f"every array of a batch has rows, and their number on a host must divide over its {local} shares"
        require(np.ndim(value) > 0 and len(value) % local == 0, f"batch[{name!r}] shape", np.shape(value), rule)
    return {
        name: jax.make_array_from_process_local_data(sharding, value, (len(value) * hosts, *value.shape[1:]))
        for name, value in batch.items()
    }
