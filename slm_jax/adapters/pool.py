"""Means of neighbouring frames, normalised and mapped (Qwen-Audio, arXiv 2311.07919; `Qwen2AudioEncoder`)."""

from typing import Any

import flax.linen as nn

from slm_jax.adapters.linear import output_map
from slm_jax.adapters.windows import window_count, windows
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import at_least_float32, compute_dtype
from slm_jax.nn.norm import LayerNorm


class PoolAdapterConfig(Config):
    """The mean of `pool` frames, then, with `norm`, a LayerNorm, then a map to `width`.

    Frames that fill no window of `pool` are left out, as in `torch.nn.AvgPool1d`. The encoder's last norm, which
    Qwen-Audio moves behind the mean, is this `norm`: the encoder in front must not have one.
    """

    width: int
    pool: int = 2
    norm: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "must be at least 1")
        require(self.pool >= 1, "pool", self.pool, "frames, at least 1")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        return window_count(frames, self.pool, "drop")

    def make(self) -> "PoolAdapter":
        """The module."""
        return PoolAdapter(self)


class PoolAdapter(nn.Module):
    """Frames [B, T, D] to [B, T // pool, width]; sub-modules `norm`, `map`."""

    config: PoolAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        values, mask = windows(frames, c.pool, "drop")
        x = values.astype(at_least_float32(values.dtype)).mean(2)
        x = LayerNorm(dtype=dtype, name="norm")(x) if c.norm else x
        return Frames(output_map(c.width, dtype, name="map")(x), mask.all(-1))
