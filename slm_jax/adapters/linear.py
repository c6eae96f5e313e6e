"""The simplest adapter: a linear map, of every frame or of a few frames side by side."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear


class LinearAdapterConfig(Config):
    """A map to `width` channels of `stack` neighbouring frames; a last stack that is not full is filled with zeros."""

    width: int
    stack: int = 1
    use_bias: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "must be at least 1")
        require(self.stack >= 1, "stack", self.stack, "frames, at least 1")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        return -(-frames // self.stack)

    def make(self) -> "LinearAdapter":
        """The module."""
        return LinearAdapter(self)


class LinearAdapter(nn.Module):
    """Frames [B, T, D] to [B, ceil(T / stack), width]; sub-module `map`."""

    config: LinearAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        values, mask = stacked(frames, self.config.stack)
        layer = Linear(
            self.config.width,
            in_names=("embed",),
            out_names=(None,),
            use_bias=self.config.use_bias,
            dtype=compute_dtype(self.config.dtype),
            name="map",
        )
        return Frames(layer(values), mask)


def stacked(frames: Frames, stack: int) -> tuple[Float[Array, "B M E"], Bool[Array, "B M"]]:
    """`stack` neighbouring frames as one, zeros where frames are not real; real where one of them is."""
    values = jnp.where(frames.mask[..., None], frames.values, 0)
    missing = -values.shape[1] % stack
    values = jnp.pad(values, ((0, 0), (0, missing), (0, 0)))
    mask = jnp.pad(frames.mask, ((0, 0), (0, missing)))
    rows = values.shape[0]
    joined: jax.Array = values.reshape(rows, -1, stack * values.shape[2])
    return joined, mask.reshape(rows, -1, stack).any(-1)
