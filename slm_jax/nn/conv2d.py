"""Convolutions over two axes on `[B, T, F, D]`, weight-normalised: what judges of spectrograms are made of.

Kernels are stored as `[K, L, I, O]`, tap order as in PyTorch.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.nn.conv import weight_normed
from slm_jax.nn.conv_forms import conv_2d


class Conv2d(nn.Module):
    """Equal to `torch.nn.Conv2d` with weight norm over outputs; `padding` zeros on both sides of each axis."""

    features: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T F D"]) -> Float[Array, "B T2 F2 O"]:
        shape, names = (*self.kernel, x.shape[-1], self.features), (None, None, "conv_in", "conv_out")
        spread = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        direction = self.param("weight_v", nn.with_logical_partitioning(spread, names), shape, self.param_dtype)
        length = nn.with_logical_partitioning(lambda key: _lengths(direction), (None, None, None, "conv_out"))
        kernel = weight_normed(self.param("weight_g", length), direction)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("conv_out",))
        bias = self.param("bias", zeros, (self.features,), self.param_dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv_2d(x, kernel, self.padding, self.stride, self.dilation)
        return y + bias.astype(self.dtype)


def _lengths(direction: Float[Array, "K L I O"]) -> Float[Array, "1 1 1 O"]:
    return jnp.sqrt(jnp.square(direction).sum((0, 1, 2), keepdims=True))
