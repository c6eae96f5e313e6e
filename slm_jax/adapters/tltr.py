"""TLTR (Gong et al. 2023, arXiv 2307.03183; LTU-AS, arXiv 2309.14405): over time in each layer, then over layers.

In front of it stands an encoder with all its layers side by side (`encoders.layer_states`), whose frames are means over
some tenths of a second: what is said lies in the upper layers of a recogniser, other sounds and voices in lower ones.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.adapters.linear import output_map
from slm_jax.adapters.transformer import TransformerLayer
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.visibility import Visibility

WIDER = 4
"""Hidden channels of a block over its channels, as in Whisper."""


class TLTRConfig(Config):
    """One Transformer block of Whisper's form over time, shared by all `layers`, one over layers, shared by all times.

    Then the mean over layers, a norm without weights and a map to `width`. The defaults are LTU-AS over Whisper large.
    There are no positions: neither block can tell which layer or time comes first but by what is in it.
    """

    width: int
    layers: int = 32
    time_heads: int = 1
    layer_heads: int = 8
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "layers", "time_heads", "layer_heads"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """As many frames as go in."""
        return frames

    def make(self) -> "TLTR":
        """The module."""
        return TLTR(self)


class TLTR(nn.Module):
    """Frames [B, T, L D] of L layers to [B, T, width]; sub-modules `over_time`, `over_layers`, `map`."""

    config: TLTRConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at. Raises `UserError` where layers or heads do not divide the channels."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = self._by_layer(frames).astype(dtype)
        batch, length, layers, width = x.shape
        block = partial(TransformerLayer, hidden=WIDER * width, activation="gelu", dropout=0.0, key_bias=False)
        real = Visibility(jnp.repeat(frames.mask, layers, axis=0).astype(jnp.int32), causal=False)
        over_time = block(heads=c.time_heads, dtype=dtype, name="over_time")
        over_layers = block(heads=c.layer_heads, dtype=dtype, name="over_layers")
        x = jnp.swapaxes(x, 1, 2).reshape(batch * layers, length, width)
        x = over_time(x, None, real, deterministic=deterministic)[0].reshape(batch, layers, length, width)
        x = jnp.swapaxes(x, 1, 2).reshape(batch * length, layers, width)
        x = over_layers(x, None, Visibility(causal=False), deterministic=deterministic)[0].mean(1)
        x = LayerNorm(use_scale=False, use_bias=False, dtype=dtype)(x.reshape(batch, length, width))
        return Frames(output_map(c.width, dtype, name="map")(x), frames.mask)

    def _by_layer(self, frames: Frames) -> Float[Array, "B T L D"]:
        c, channels = self.config, frames.values.shape[-1]
        require(channels % c.layers == 0, "layers", c.layers, f"must divide the {channels} channels that come in")
        for name, heads in (("time_heads", c.time_heads), ("layer_heads", c.layer_heads)):
            require(channels // c.layers % heads == 0, name, heads, f"must divide {channels // c.layers} channels")
        return zero_padded(frames.values, frames.mask).reshape(*frames.mask.shape, c.layers, channels // c.layers)
