"""Dense maps and embeddings with logical axis names."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.core.errors import require
from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.int8 import as_stored
from slm_jax.parallel.placement import current_mesh, whole

Names = tuple[str | None, ...]


class Linear(nn.Module):
    """`x @ kernel + bias` over the last `len(in_names)` axes of `x`, giving the axes `features`.

    The kernel has shape `[*in, *features]` and the logical names `in_names + out_names`; the sum runs in float32 on
    devices that offer it. `features` may be a tuple: `(H, C)` for the heads of an attention. A kernel that `nn.lora`
    or `nn.int8` adapts or stores otherwise is read as it lies.
    """

    features: int | tuple[int, ...]
    in_names: Names = (None,)
    out_names: Names | None = None
    use_bias: bool = True
    kernel_init: Callable | None = None
    bias_init: Callable = nn.initializers.zeros
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        features = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        out_names = self.out_names or (None,) * len(features)
        require(len(out_names) == len(features), "out_names", out_names, f"must name the {len(features)} output axes")
        contracted = len(self.in_names)
        init = self.kernel_init or fan_in_init(contracted)
        shape = (*x.shape[-contracted:], *features)
        kernel = self.param(
            "kernel", nn.with_logical_partitioning(init, (*self.in_names, *out_names)), shape, self.param_dtype
        )
        kernel, scale = as_stored(kernel, self.dtype)
        y = product(x.astype(self.dtype), kernel, contracted)
        if scale is not None:
            y = (y * scale.reshape(features)).astype(self.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.with_logical_partitioning(self.bias_init, out_names), features, self.param_dtype)
        return y + bias.astype(self.dtype)


class Embed(nn.Module):
    """A table of `entries` vectors of width `features`, that can also score against its rows (a tied head)."""

    entries: int
    features: int
    names: Names = ("vocab", "embed")
    embedding_init: Callable = nn.initializers.normal(0.02)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        init = nn.with_logical_partitioning(self.embedding_init, self.names)
        self.embedding = self.param("embedding", init, (self.entries, self.features), self.param_dtype)

    def __call__(self, ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Rows of the table; an id outside it takes the nearest row, so check ids where they are made."""
        table = self.embedding
        if current_mesh() is not None:  # gathered as weights are: cut by columns, XLA would copy all rows everywhere
            table = whole(table.astype(self.dtype))
        return jnp.take(table, ids, axis=0, mode="clip").astype(self.dtype)

    def attend(self, x: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Float32 scores of `x` against every row."""
        return scores_float32(x.astype(self.dtype), self.embedding.astype(self.dtype))


def logits_float32(x: Float[Array, "*B D"], kernel: Float[Array, "D V"]) -> Float[Array, "*B V"]:
    """`x @ kernel` with the sums kept in float32, whatever the inputs' dtype."""
    return product(x, kernel, 1, preferred_element_type=at_least_float32(x.dtype))


def scores_float32(x: Float[Array, "*B D"], table: Float[Array, "V D"]) -> Float[Array, "*B V"]:
    """`logits_float32(x, table.T)`, which in a loop XLA on CPU would write down transposed before it."""
    over = (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, table, over, preferred_element_type=at_least_float32(x.dtype))


def product(
    x: Float[Array, "..."], kernel: Float[Array | np.ndarray, "..."], contracted: int, **options: Any
) -> Float[Array, "..."]:
    """The sum over the last `contracted` axes of `x` and the first of `kernel`, as one product of two matrices.

    With more axes XLA on CPU writes the gradient of the output down transposed for the gradient of the kernel, which
    costs up to seven times the product itself (1024 x 192 by 1024 x 768).
    """
    inputs = math.prod(kernel.shape[:contracted])
    y = jnp.matmul(x.reshape(-1, inputs), kernel.reshape(inputs, -1), **options)
    return y.reshape(*x.shape[: x.ndim - contracted], *kernel.shape[contracted:])


def fan_in_init(contracted: int) -> Callable:
    """Truncated normal of variance 1 / (inputs), where the first `contracted` axes of the kernel are the inputs."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        in_axis, out_axis = tuple(range(contracted)), tuple(range(contracted, len(shape)))
        draw = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=in_axis, out_axis=out_axis)
        return draw(key, shape, dtype)

    return init
