"""Where the step that is being traced will run, for the few places in a model that must know.

A training step is traced inside `placed_on(mesh)`; layers then ask for the platform, or say how their activations lie.
Outside of it everything is as on one device.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from slm_jax.parallel.rules import ROW_AXES

_MESH: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextlib.contextmanager
def placed_on(mesh: Mesh) -> Iterator[None]:
    """What is traced inside runs on the devices of `mesh`."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def current_mesh() -> Mesh | None:
    """The mesh of several devices that the code being traced runs on; None for one device or an unknown place."""
    mesh = _MESH.get()
    return None if mesh is None or mesh.size == 1 else mesh


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: what the code being traced runs on, which need not be in this machine."""
    mesh = _MESH.get()
    name = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def axis_size(mesh: Mesh | None, axes: Sequence[str]) -> int:
    """How many parts these mesh axes make together."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in axes)


def time_spec(mesh: Mesh, shape: Sequence[int]) -> tuple[tuple[str, ...] | None, str | None]:
    """Where rows and time of an array `[B, T, ...]` lie: an axis that does not divide them is left out."""
    rows = ROW_AXES if shape[0] % axis_size(mesh, ROW_AXES) == 0 else None
    return rows, "sequence" if shape[1] % mesh.shape["sequence"] == 0 else None


def activations(x: Array) -> Array:
    """`x` `[B, T, ...]` with its rows on the row axes and its time on `sequence`, as far as they divide."""
    mesh = current_mesh()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*time_spec(mesh, x.shape))))


def by_rows(f: Callable[[Array, Array], Array], x: Array, weights: Array) -> Array:
    """`f(x, weights)` `[B, ...]`, each device on its own rows of `x` `[B, ...]` where the mesh has axes beside those.

    For what XLA's partitioner gets wrong there: it sums the gradient of a grouped convolution's kernel over all
    devices, also over those that hold copies of the same rows, so that it comes out as many times too large.
    """
    mesh = current_mesh()
    if mesh is None or mesh.size == axis_size(mesh, ROW_AXES):
        return f(x, weights)
    rows = PartitionSpec(time_spec(mesh, x.shape)[0])
    return jax.shard_map(f, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)(x, weights)


def whole(x: Array) -> Array:
    """`x` with all of it on every device."""
    mesh = current_mesh()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec()))
