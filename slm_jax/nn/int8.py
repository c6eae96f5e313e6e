"""Kernels kept as int8 with one float32 scale per output channel: a frozen base at a quarter of its bytes.

In the tree of parameters the leaf `kernel` becomes `kernel/q` (int8, the kernel's shape) and `kernel/scale` (float32,
the same axes with the inputs at size 1). `Linear` multiplies by `q` in its compute dtype, which holds these integers
exactly, and scales what comes out. Weights only: activations stay as they are.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jaxtyping import Array, Num

from slm_jax.core.errors import require

LEVELS = 127
"""Steps on either side of zero; -128 is not used, so that the grid is symmetric."""


def quantised(kernel: Num[Array, "..."], inputs: tuple[int, ...]) -> dict[str, Array]:
    """`{"q", "scale"}` of a kernel whose axes `inputs` are summed over; no weight moves by more than `scale / 2`."""
    floats = jnp.issubdtype(kernel.dtype, jnp.floating)
    require(floats, "kernel dtype", str(kernel.dtype), "must be a float: is it kept in int8 already?")
    kernel = kernel.astype(jnp.float32)
    largest = jnp.abs(kernel).max(axis=inputs, keepdims=True)
    scale = jnp.where(largest > 0, largest / LEVELS, 1.0)
    return {"q": jnp.round(kernel / scale).astype(jnp.int8), "scale": scale}


def is_int8(kernel: Any) -> bool:
    """Is this what `quantised` made, instead of an array?"""
    return isinstance(kernel, dict) and set(kernel) == {"q", "scale"}


def as_stored(kernel: Any, dtype: Any) -> tuple[Array | np.ndarray, Array | np.ndarray | None]:
    """The kernel to multiply by in `dtype`, and the scale of what comes out (None for a kernel kept in floats)."""
    if is_int8(kernel):
        return kernel["q"].astype(dtype), kernel["scale"]
    return kernel.astype(dtype), None


def dequantised(params: Any) -> Any:
    """The tree with a float32 array in place of every kernel kept in int8."""
    if is_int8(params):
        return jnp.asarray(params["q"], jnp.float32) * params["scale"]
    if not isinstance(params, dict):
        return params
    return {name: dequantised(tree) for name, tree in params.items()}


def boxed_like(kernel: Any, stored: dict[str, Array], inputs: tuple[int, ...]) -> dict[str, Any]:
    """`stored` in boxes with the logical names of `kernel`, if that has any."""
    if not isinstance(kernel, meta.AxisMetadata):
        return stored
    names = kernel.names  # type: ignore[attr-defined]
    kept = tuple(None if axis in inputs else name for axis, name in enumerate(names))
    box = kernel.replace  # type: ignore[attr-defined]
    return {"q": box(value=stored["q"], names=names), "scale": box(value=stored["scale"], names=kept)}
