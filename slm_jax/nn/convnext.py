"""Causal ConvNeXt blocks, whole and step by step (Liu et al. 2022; over time as in Siuzdak 2023)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool

from slm_jax.core.types import Frames
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import gelu
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.streaming_conv import CausalConv1d


class CausalConvNeXt(nn.Module):
    """A convolution of each channel over time, norm, two dense layers, scaled, beside what came in."""

    width: int
    hidden: int
    kernel: int = 7
    scale: float = 0.3
    dtype: Any = jnp.float32

    stride = 1
    latency = 0

    def setup(self) -> None:
        depthwise = {"groups": self.width, "form": "unfold", "dtype": self.dtype}
        self.depthwise = CausalConv1d(self.width, self.width, self.kernel, **depthwise)
        self.norm = LayerNorm(dtype=self.dtype)
        self.expand = Linear(self.hidden, ("conv_in",), ("mlp",), dtype=self.dtype)
        self.contract = Linear(self.width, ("mlp",), ("conv_out",), dtype=self.dtype)
        init = nn.with_logical_partitioning(nn.initializers.constant(self.scale), ("norm",))
        self.gain = self.param("gain", init, (self.width,), jnp.float32)

    @property
    def receptive_field(self) -> int:
        """Frames that can reach one."""
        return self.kernel

    def __call__(self, frames: Frames) -> Frames:
        return self._beside(frames, self.depthwise(frames))

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Any:
        """That of the convolution."""
        return self.depthwise.initial_state(batch, capacity, dtype)

    def step(self, frames: Frames, state: Any) -> tuple[Frames, Any]:
        """The next frames."""
        mixed, state = self.depthwise.step(frames, state)
        return self._beside(frames, mixed), state

    def reset(self, state: Any, rows: Bool[Array, "B"]) -> Any:
        """The state with `rows` back at the beginning."""
        return self.depthwise.reset(state, rows)

    def _beside(self, frames: Frames, mixed: Frames) -> Frames:
        made = self.contract(gelu(self.expand(self.norm(mixed.values))))
        return Frames(frames.values + made * self.gain.astype(self.dtype), frames.mask)
