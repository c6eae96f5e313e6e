"""What the encoders and decoders of DAC and SNAC share: residual units, attention within windows.

Source: Kumar et al. 2023; Siuzdak et al. 2024, whose convolutions over time each see one channel. Neither is causal.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn import steps
from slm_jax.nn.attention import Attention
from slm_jax.nn.conv import Conv1d, ConvTranspose1d, length_mask, zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.positions import rotation
from slm_jax.nn.snake import Snake

DILATIONS = (1, 3, 9)
HEAD = 64
"""Channels of a head of the attention."""


class DACShape(Config):
    """`strides` from the waveform to latents of `width` channels; `channels` where the waveform is on one side.

    `depthwise`: SNAC's form. `window`: frames that see each other, in its attention; None has none.
    """

    channels: int
    width: int
    strides: tuple[int, ...]
    depthwise: bool = False
    window: int | None = None
    weight_norm: bool = True
    dtype: str = "float32"

    startup = 1

    def __post_init__(self) -> None:
        require(bool(self.strides), "strides", self.strides, "at least one")
        require(self.window is None or self.depthwise, "window", self.window, "SNAC's form alone has attention")
        compute_dtype(self.dtype)

    @property
    def hop(self) -> int:
        """Samples per latent."""
        return math.prod(self.strides)

    def conv(self, features: int, kernel: int, **more: Any) -> "MaskedConv":
        """A convolution as all of them are."""
        norm = 0 if self.weight_norm else None
        return MaskedConv(Conv1d(features, kernel, weight_norm=norm, dtype=compute_dtype(self.dtype), **more))

    def up(self, features: int, stride: int) -> "MaskedConv":
        """A transposed convolution as all of them are: of odd strides DAC's gives a sample less each time."""
        norm, more = 0 if self.weight_norm else None, stride % 2 if self.depthwise else 0
        settings = {"weight_norm": norm, "dtype": compute_dtype(self.dtype), "output_padding": more}
        return MaskedConv(ConvTranspose1d(features, 2 * stride, stride, -(-stride // 2), **settings))

    def units(self, channels: int) -> list["DACUnit"]:
        """The residual units of a stage."""
        return [DACUnit(self, channels, dilation) for dilation in DILATIONS]


class MaskedConv(nn.Module):
    """A convolution over frames, whose mask follows its lengths."""

    conv: Conv1d | ConvTranspose1d

    def setup(self) -> None:
        nn.share_scope(self, self.conv)

    def __call__(self, frames: Frames) -> Frames:
        lengths = self.conv.frames_out(frames.mask.sum(-1))
        values = self.conv(frames.values, frames.mask)
        mask = length_mask(jnp.maximum(lengths, 0), values.shape[1])
        return Frames(zero_padded(values, mask), mask)


class DACUnit(nn.Module):
    """Two convolutions behind their snakes, beside what came in."""

    shape: DACShape
    channels: int
    dilation: int

    def setup(self) -> None:
        groups = self.channels if self.shape.depthwise else 1
        wide = {"dilation": self.dilation, "padding": 3 * self.dilation, "groups": groups}
        self.layers = [Snake(), self.shape.conv(self.channels, 7, **wide), Snake(), self.shape.conv(self.channels, 1)]

    def __call__(self, frames: Frames) -> Frames:
        return Frames(frames.values + steps.run(self.layers, frames).values, frames.mask)


class NoiseBlock(nn.Module):
    """Adds noise, as loud as a map of what comes in says; the rng `noise` draws it, without one there is none."""

    shape: DACShape
    channels: int

    def setup(self) -> None:
        self.gain = self.shape.conv(self.channels, 1, use_bias=False)

    def __call__(self, frames: Frames) -> Frames:
        if not self.has_rng("noise") and not self.is_initializing():
            return frames
        key = jax.random.key(0) if self.is_initializing() else self.make_rng("noise")
        gain = self.gain(frames).values
        noise = jax.random.normal(key, (*frames.mask.shape, 1), gain.dtype)
        return Frames(frames.values + zero_padded(noise * gain, frames.mask), frames.mask)


class WindowAttention(nn.Module):
    """Attention of frames within windows that do not overlap, with rotations, beside what came in."""

    window: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frames: Frames) -> Frames:
        """Raises `UserError` for a number of frames that is no multiple of the window."""
        batch, length, width = frames.values.shape
        rule = f"a multiple of the window of {self.window}"
        require(length % self.window == 0, "frames", length, rule)
        x = LayerNorm(dtype=self.dtype, name="norm")(frames.values).reshape(-1, self.window, width)
        sees = jnp.broadcast_to(frames.mask.reshape(-1, 1, self.window), (len(x), self.window, self.window))
        by = rotation(jnp.broadcast_to(jnp.arange(self.window), x.shape[:2]), HEAD, 10_000.0)
        settings: dict[str, Any] = {"qkv_bias": False, "out_bias": False, "dtype": self.dtype, "name": "attention"}
        y = Attention(width // HEAD, HEAD, **settings)(x, mask=sees, by=by)[0].reshape(batch, length, width)
        return Frames(zero_padded(frames.values + y, frames.mask), frames.mask)


def tanh(frames: Frames) -> Frames:
    """Samples in (-1, 1)."""
    return Frames(jnp.tanh(frames.values), frames.mask)
