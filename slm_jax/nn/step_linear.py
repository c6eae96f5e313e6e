"""Dense maps with a kernel of their own for each of a few steps, as depth transformers have them."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta
from jaxtyping import Array, Float

from slm_jax.core.errors import require
from slm_jax.nn.linear import Names, fan_in_init, product


class StepLinear(nn.Module):
    """`x[:, t] @ kernel[first + t]` over the last `len(in_names)` axes of `x`, without a bias.

    The kernels are one parameter `steps` `[J, *in, *features]`; a single one (`count` 1) serves every step. Parameters
    that `nn.stack.unstack` has cut hold one array for each step, which a decoding loop reads where it lies.
    """

    count: int
    features: tuple[int, ...]
    in_names: Names = ("embed",)
    out_names: Names = ("mlp",)
    kernel_init: Callable | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T *D"], first: int = 0) -> Float[Array, "B T *F"]:
        """`first`: the step of the first entry."""
        contracted, given, apart = len(self.in_names), x.shape[1], self.count > 1
        kernels, x = self._kernels(x.shape[-contracted:]), x.astype(self.dtype)
        require(not apart or first + given <= self.count, "steps", first + given, f"there are kernels for {self.count}")
        if given == 1 or not apart:
            y = product(x, kernels[first if apart else 0].astype(self.dtype), contracted)
        else:
            own = kernels[first : first + given]
            own = jnp.stack(own) if isinstance(own, list) else own  # cut apart for loops
            flat = own.astype(self.dtype).reshape(given, -1, math.prod(self.features))
            y = jnp.einsum("bti,tif->btf", x.reshape(*x.shape[:2], -1), flat)
        return y.reshape(*x.shape[:2], *self.features)

    def _kernels(self, inputs: tuple[int, ...]) -> Any:
        held = self.get_variable("params", "steps") if self.has_variable("params", "steps") else None
        if isinstance(held, dict):
            return [meta.unbox(held[str(step)]) for step in range(self.count)]
        init = self.kernel_init or fan_in_init(len(inputs))

        def drawn(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jax.vmap(lambda key: init(key, shape[1:], dtype))(jax.random.split(key, shape[0]))

        boxed = nn.with_logical_partitioning(drawn, (None, *self.in_names, *self.out_names))
        return self.param("steps", boxed, (self.count, *inputs, *self.features), self.param_dtype)
