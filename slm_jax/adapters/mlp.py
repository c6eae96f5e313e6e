"""A small network over a few frames side by side (SLAM-LLM's linear projector, arXiv 2402.08846)."""

from typing import Any

import flax.linen as nn

from slm_jax.adapters.windows import require_tail, window_count, windows
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import activation
from slm_jax.nn.norm import LayerNorm


class MLPAdapterConfig(Config):
    """`map(f(up(x)))` over `stack` neighbouring frames, with a LayerNorm of these in front where `norm` says so.

    `tail`: what becomes of a last stack that is not full, "drop" as in SLAM-LLM or "pad" with zeros.
    """

    width: int
    hidden: int = 2048
    stack: int = 1
    tail: str = "drop"
    activation: str = "relu"
    norm: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "hidden", "stack"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require_tail(self.tail)
        activation(self.activation)
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        return window_count(frames, self.stack, self.tail)

    def make(self) -> "MLPAdapter":
        """The module."""
        return MLPAdapter(self)


class MLPAdapter(nn.Module):
    """Frames [B, T, D] to [B, M, width]; sub-modules `norm`, `up`, `map`."""

    config: MLPAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        values, mask = windows(frames, c.stack, c.tail)
        x = values.reshape(*mask.shape[:2], -1)
        x = LayerNorm(dtype=dtype, name="norm")(x) if c.norm else x
        x = activation(c.activation)(Linear(c.hidden, ("embed",), ("mlp",), dtype=dtype, name="up")(x))
        real = mask.all(-1) if c.tail == "drop" else mask.any(-1)
        return Frames(Linear(c.width, ("mlp",), (None,), dtype=dtype, name="map")(x), real)
