"""Where a frame is, told by a convolution over its neighbours."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.mlp import activation


class PositionalConvConfig(Config):
    """The published models use kernel 128 in 16 groups with weight norm over the taps.

    The gradient of a grouped convolution is very slow in XLA on CPU (9.6 s where the dense kernel of 15 taps takes
    37 ms), so small models there take `groups` 1 with few taps, or `groups` 0 (depthwise) with `form` "unfold".
    `form` "lax" is one XLA operation, "unfold" a sum over shifted copies.
    """

    kernel: int = 128
    groups: int = 16
    weight_norm: bool = True
    form: str = "lax"

    def __post_init__(self) -> None:
        require(self.kernel >= 1, "kernel", self.kernel, "must be at least 1")
        require(self.groups >= 0, "groups", self.groups, "must be 0 (depthwise) or the number of groups")
        require(self.form in ("lax", "unfold"), "form", self.form, "must be 'lax' or 'unfold'")


class PositionalConv(nn.Module):
    """`gelu(conv(x))` with as many frames as `x`; an even kernel sees one frame more to the left."""

    config: PositionalConvConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        c, frames, width = self.config, x.shape[1], x.shape[-1]
        conv = Conv1d(
            width,
            c.kernel,
            groups=c.groups or width,
            padding=c.kernel // 2,
            weight_norm=2 if c.weight_norm else None,
            form=c.form,
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
            dtype=self.dtype,
            name="conv",
        )
        return activation("gelu")(conv(x, mask)[:, :frames])
