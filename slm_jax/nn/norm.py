"""Normalisation layers; statistics are float32 whatever the inputs (float64 for those)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.errors import require
from slm_jax.nn.dtypes import at_least_float32


class LayerNorm(nn.Module):
    """Zero mean and unit variance over the last axis, then scale and bias."""

    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    names: tuple[str | None, ...] = ("norm",)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x = x.astype(at_least_float32(x.dtype))
        centred = x - x.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return _scale_and_bias(self, y, self.use_scale, self.use_bias).astype(self.dtype)


class RMSNorm(nn.Module):
    """Unit root mean square over the last axis, then scale (Zhang and Sennrich 2019)."""

    epsilon: float = 1e-6
    names: tuple[str | None, ...] = ("norm",)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x = x.astype(at_least_float32(x.dtype))
        y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        return _scale_and_bias(self, y, True, False).astype(self.dtype)


class FoldedBatchNorm(nn.Module):
    """A factor and an offset for each channel: a batch norm whose statistics are settled and folded into its weights.

    It looks at no batch, in training neither, so that a row is what it is alone. The statistics of a published batch
    norm come in through `interop.transforms.BatchNorm`; what is born here should take a `LayerNorm`.
    """

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    names: tuple[str | None, ...] = ("norm",)

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return _scale_and_bias(self, x.astype(self.dtype), True, True).astype(self.dtype)


class GroupNorm(nn.Module):
    """Zero mean and unit variance over time and the channels of each of `groups` groups, then scale and bias.

    With a `mask` the statistics are those of the real frames alone, so that padding has no effect; without one every
    frame counts, as in `torch.nn.GroupNorm`. The values of masked frames are normalised too: callers zero them.
    """

    groups: int
    epsilon: float = 1e-5
    names: tuple[str | None, ...] = ("norm",)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        batch, frames, width = x.shape
        require(width % self.groups == 0, "groups", self.groups, f"must divide the width {width}")
        x = x.astype(at_least_float32(x.dtype)).reshape(batch, frames, self.groups, width // self.groups)
        real = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask[:, :, None, None]
        mean = jnp.mean(x, axis=(1, 3), keepdims=True, where=real)
        variance = jnp.mean(jnp.square(x - mean), axis=(1, 3), keepdims=True, where=real)
        if mask is not None:  # a row without a real frame has no statistics
            mean, variance = jnp.nan_to_num(mean), jnp.nan_to_num(variance)
        y = ((x - mean) * jax.lax.rsqrt(variance + self.epsilon)).reshape(batch, frames, width)
        return _scale_and_bias(self, y, True, True).astype(self.dtype)


def _scale_and_bias(module: Any, y: jax.Array, use_scale: bool, use_bias: bool) -> jax.Array:
    shape = (y.shape[-1],)
    if use_scale:
        init = nn.with_logical_partitioning(nn.initializers.ones, module.names)
        y = y * module.param("scale", init, shape, module.param_dtype).astype(y.dtype)
    if use_bias:
        init = nn.with_logical_partitioning(nn.initializers.zeros, module.names)
        y = y + module.param("bias", init, shape, module.param_dtype).astype(y.dtype)
    return y
