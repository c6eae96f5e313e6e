"""What SEANet's encoder and decoder share: their shape, and the residual unit (Tagliasacchi et al. 2020).

EnCodec and Mimi are of this form (Défossez et al. 2022, 2024), and so is SoundStream but for its last layers.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
from jaxtyping import Array, Bool

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn import steps
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.steps import Elementwise
from slm_jax.nn.streaming_conv import CausalConv1d, CausalConvTranspose1d

elu = Elementwise(jax.nn.elu)


class SEANetShape(Config):
    """Channels from `filters`, doubled by every stride, to `width`; `strides` from the waveform to the latents.

    `residual_layers` units stand before each stride, of kernel `residual_kernel` and dilations that grow by
    `dilation_base`, with `compress` times fewer channels inside; `shortcut`: a convolution of one tap beside them.
    `lstm`: its layers, over the lowest rate. `before`: what stands before the first sample (`nn.streaming_conv`).
    """

    filters: int = 32
    width: int = 128
    strides: tuple[int, ...] = (2, 4, 5, 8)
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    residual_layers: int = 1
    dilation_base: int = 2
    compress: int = 2
    shortcut: bool = True
    lstm: int = 2
    before: Literal["zeros", "repeat", "mirror"] = "mirror"
    weight_norm: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("filters", "width", "kernel", "last_kernel", "residual_kernel", "compress"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(bool(self.strides), "strides", self.strides, "at least one")
        compute_dtype(self.dtype)

    @property
    def hop(self) -> int:
        """Samples per latent."""
        return math.prod(self.strides)

    @property
    def startup(self) -> int:
        """Latents that must come at once where a stream begins, since their first are mirrored."""
        return max(self.kernel, self.last_kernel) if self.before == "mirror" else 1

    def conv(self, inputs: int, features: int, kernel: int, stride: int = 1, dilation: int = 1) -> CausalConv1d:
        """A convolution as all of them are."""
        settings = {"before": self.before, "weight_norm": 0 if self.weight_norm else None}
        return CausalConv1d(inputs, features, kernel, stride, dilation, dtype=compute_dtype(self.dtype), **settings)

    def up(self, inputs: int, features: int, stride: int) -> CausalConvTranspose1d:
        """A transposed convolution as all of them are."""
        norm = 0 if self.weight_norm else None
        return CausalConvTranspose1d(
            inputs, features, 2 * stride, stride, weight_norm=norm, dtype=compute_dtype(self.dtype)
        )

    def units(self, channels: int) -> list["ResidualUnit"]:
        """The residual units before a stride."""
        return [ResidualUnit(self, channels, self.dilation_base**layer) for layer in range(self.residual_layers)]


class ResidualUnit(nn.Module):
    """Two convolutions behind their activations, beside what came in."""

    shape: SEANetShape
    channels: int
    dilation: int

    stride = 1
    latency = 0

    def setup(self) -> None:
        inner = self.channels // self.shape.compress
        first = self.shape.conv(self.channels, inner, self.shape.residual_kernel, dilation=self.dilation)
        self.block = [elu, first, elu, self.shape.conv(inner, self.channels, 1)]
        self.shortcut = self.shape.conv(self.channels, self.channels, 1) if self.shape.shortcut else None

    def __call__(self, frames: Frames) -> Frames:
        return self._beside(frames, steps.run(self.block, frames))

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> tuple:
        """That of the convolutions."""
        return steps.initial_states(self.block, batch, capacity, dtype)

    def step(self, frames: Frames, state: tuple) -> tuple[Frames, tuple]:
        """The next frames."""
        made, state = steps.step(self.block, frames, state)
        return self._beside(frames, made), state

    def reset(self, state: tuple, rows: Bool[Array, "B"]) -> tuple:
        """The state with `rows` back at the beginning."""
        return steps.reset(self.block, state, rows)

    def _beside(self, frames: Frames, made: Frames) -> Frames:
        kept = frames if self.shortcut is None else self.shortcut(frames)
        return Frames(kept.values + made.values, frames.mask)
