"""The simplest adapter: a linear map, of every frame or of a few frames side by side."""

from typing import Any

import flax.linen as nn

from slm_jax.adapters.windows import window_count, windows
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
        return window_count(frames, self.stack, "pad")

    def make(self) -> "LinearAdapter":
        """The module."""
        return LinearAdapter(self)


class LinearAdapter(nn.Module):
    """Frames [B, T, D] to [B, ceil(T / stack), width]; sub-module `map`."""

    config: LinearAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        values, mask = windows(frames, self.config.stack, "pad")
        layer = output_map(self.config.width, compute_dtype(self.config.dtype), self.config.use_bias, name="map")
        return Frames(layer(values.reshape(*mask.shape[:2], -1)), mask.any(-1))


def output_map(width: int, dtype: Any, use_bias: bool = True, name: str | None = None) -> Linear:
    """The map to the width of the language model with which adapters end."""
    return Linear(width, in_names=("embed",), out_names=(None,), use_bias=use_bias, dtype=dtype, name=name)
