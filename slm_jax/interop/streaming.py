"""Checkpoints that are larger than the memory, from a hub folder to a model folder and back.

Nothing is held but one layer of one weight: sources are memory maps, targets are written part by part.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.checkpoints.model_folder import save_model
from slm_jax.checkpoints.streamed import CHUNK_BYTES, StoredArray, StreamedArray
from slm_jax.core.errors import require
from slm_jax.core.trees import flatten_by_path, map_by_path
from slm_jax.interop.engine import Job, Plan, nested, pieces
from slm_jax.interop.model import DTYPES, HubModel
from slm_jax.interop.readers import WeightSource
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for

Shape = tuple[int, ...]
Told = Callable[[int], Any]
"""Is told how many bytes are done."""


def import_streamed(
    model: HubModel,
    folder: str | Path,
    meta: dict[str, Any],
    *,
    dtype: str | None = None,
    devices: int | None = None,
    files: Iterable[Path] = (),
    told: Told | None = None,
) -> Path:
    """Write an opened hub folder as a model folder, which appears whole or not at all.

    `dtype`: float32 (default), bfloat16 or float16. `devices`: lay the arrays out for that many, so that each reads
    its own share; none of them needs to be here. `files` are copied in. Raises `UserError` when `folder` exists or when
    the weights contradict themselves.
    """
    number = dtype or "float32"
    require(number in DTYPES, "dtype", number, f"must be one of {', '.join(DTYPES)}")
    shards = {} if devices is None else device_shares(model, devices)
    compare_tied(model.plan, model.weights)
    params = streamed_params(model, np.dtype(DTYPES[number]), shards, told)
    return save_model(folder, model.config, params, meta, files)


def streamed_params(
    model: HubModel, dtype: np.dtype, shards: dict[str, Shape] | None = None, told: Told | None = None
) -> dict[str, Any]:
    """The tree of a plan's targets as `StreamedArray`, whose values are read and transformed when they are written.

    `shards`: path -> shape of one device's share, for those that are shared out.
    """
    jobs: dict[str, list[Job]] = {}
    for job in model.plan.jobs:
        for path in job.targets:
            jobs.setdefault(path, []).append(job)
    leaves = {}
    for path, own in jobs.items():
        plan = dataclasses.replace(model.plan, jobs=tuple(own), tied=())
        leaves[path] = StreamedArray(
            shape=tuple(model.plan.targets[path].shape),
            dtype=dtype,
            parts=_parts(plan, model.weights, path, dtype, told),
            layered=own[0].layer is not None,
            shard=(shards or {}).get(path),
        )
    return nested(leaves)


def device_shares(model: HubModel, devices: int) -> dict[str, Shape]:
    """Path -> shape of what one of `devices` devices holds under the rules `fsdp`."""
    mesh = MeshConfig(data=1, fsdp=devices, rules="fsdp").plan(devices)
    shardings = flatten_by_path(shardings_for(model.family.boxed(model.config), mesh, "fsdp"))
    return {path: shardings[path].shard_shape(leaf.shape) for path, leaf in model.plan.targets.items()}


def compare_tied(plan: Plan, weights: WeightSource) -> None:
    """Raise `UserError` when two sources that should be one weight differ."""
    for _ in pieces(dataclasses.replace(plan, jobs=()), weights.read):
        pass


def readable_by_layer(params: Any, scratch: Path) -> Any:
    """`params` with every large `StoredArray` in a form whose layers can be read alone.

    One that was stored as a whole is unpacked into a file in the folder `scratch`, once and not for every layer.
    """
    return map_by_path(lambda path, leaf: _by_layer(leaf, scratch / path.replace("/", ".")), params)


def _by_layer(leaf: Any, file: Path) -> Any:
    if not isinstance(leaf, StoredArray) or leaf.parts_apart or prod(leaf.shape) * leaf.dtype.itemsize < CHUNK_BYTES:
        return leaf
    np.memmap(file, leaf.dtype, "w+", shape=leaf.shape)[...] = leaf
    return np.memmap(file, leaf.dtype, "r", shape=leaf.shape)


def _parts(
    plan: Plan, weights: WeightSource, path: str, dtype: np.dtype, told: Told | None
) -> Callable[[], Iterator[tuple[int | None, np.ndarray]]]:
    """The parts of one leaf; a source that feeds several leaves is read for each of them."""

    def parts() -> Iterator[tuple[int | None, np.ndarray]]:
        for piece in pieces(plan, weights.read, dtype):
            if piece.path == path:
                yield piece.layer, piece.array
                if told is not None:
                    told(piece.array.nbytes)

    return parts
