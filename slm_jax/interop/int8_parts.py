"""Frozen parts whose dense kernels are kept in int8 (`nn.int8`): made layer by layer when they are read."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.checkpoints.lazy import LazyArray
from slm_jax.nn.int8 import quantised
from slm_jax.nn.int8_base import quantise_int8
from slm_jax.nn.linear_sites import Sites, kernel_at, leading_axes, recorded_sites


def traced_with_sites(trace: Callable[[], Any]) -> tuple[Any, Sites]:
    """What `trace()` returns and the `Linear` layers that it initialised; it must not be traced before."""
    with recorded_sites() as sites:
        boxed = trace()
    return boxed, sites


def int8_shapes(boxed: Any, sites: Sites) -> Any:
    """Shapes of the parameters `boxed` with the kernels of `sites` kept in int8, in boxes as they were."""
    return jax.eval_shape(lambda params: quantise_int8(params, sites), boxed)


def int8_leaves(leaves: Mapping[str, LazyArray], boxed: Any, sites: Sites) -> dict[str, LazyArray]:
    """Leaves by path, with `kernel/q` and `kernel/scale` in the place of the kernels of `sites`.

    `boxed`: shapes of the parameters in floats.
    """
    found = dict(leaves)
    for path, site in sites.items():
        lead = len(leading_axes(kernel_at(boxed, path), site)[0])
        kernel, inputs = found.pop(f"{path}/kernel"), tuple(range(lead, lead + len(site.inputs)))
        found |= {f"{path}/kernel/{name}": _stored(kernel, name, lead, inputs) for name in ("q", "scale")}
    return found


def _stored(kernel: LazyArray, name: str, lead: int, inputs: tuple[int, ...]) -> LazyArray:
    by_layer = kernel.layered and lead == 1
    axes = tuple(axis - by_layer for axis in inputs)

    def part(entry: int | None) -> np.ndarray:
        values = kernel.part(entry) if by_layer else kernel
        return np.asarray(quantised(jnp.asarray(np.asarray(values, np.float32)), axes)[name])

    once = tuple(1 if axis in inputs else size for axis, size in enumerate(kernel.shape))
    whole = name == "q"
    return LazyArray(kernel.shape if whole else once, np.dtype(np.int8 if whole else np.float32), part, by_layer)
