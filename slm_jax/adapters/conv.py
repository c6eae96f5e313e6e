"""Strided convolutions over frames, plain or gated.

WavPrompt (arXiv 2203.15863)   one layer (768, k, k, 0), nothing behind it but a projection where widths differ
WavLLM (arXiv 2404.00656)      (640, 3, 2, 1), (1024, 3, 2, 1) with gates, bottleneck 512, projection 2048
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.adapters.linear import output_map
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import Conv1d, conv_length, length_mask
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import MLP, activation
from slm_jax.nn.norm import LayerNorm

ConvLayers = tuple[tuple[int, int, int, int], ...]
"""(channels out, kernel, stride, zeros on each side) of each convolution."""


class ConvAdapterConfig(Config):
    """Convolutions over time, then what is asked for of a bottleneck and a projection.

    `activation`: what follows each convolution, None, the name of a non-linearity, or "glu": the convolution makes
    twice the channels, and the second half gates the first. `bottleneck`: hidden channels of
    `x + LayerNorm(up(gelu(down(x))))`. `projection`: channels of a linear map at the end; None: there is none.
    Frames out follow the length formula of `torch.nn.Conv1d` layer by layer; no frame gives none.
    """

    layers: ConvLayers
    activation: str | None = None
    bottleneck: int | None = None
    projection: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        good = all(len(layer) == 4 and min(layer[:3]) >= 1 and layer[3] >= 0 for layer in self.layers)
        require(
            len(self.layers) > 0 and good, "layers", self.layers, "must be (channels, kernel, stride, padding), ..."
        )
        for name in ("bottleneck", "projection"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "must be at least 1, or None")
        if self.activation not in (None, "glu"):
            activation(str(self.activation))
        compute_dtype(self.dtype)

    @property
    def width(self) -> int:
        """Channels that come out."""
        return self.layers[-1][0] if self.projection is None else self.projection

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        for _, kernel, stride, padding in self.layers:
            frames = max(conv_length(frames, kernel, stride, 1, padding), 0) if frames else 0
        return frames

    def make(self) -> "ConvAdapter":
        """The module."""
        return ConvAdapter(self)


class ConvAdapter(nn.Module):
    """Frames [B, T, D] to [B, M, width]; sub-modules `conv_0` ..., `bottleneck`, `bottleneck_norm`, `map`."""

    config: ConvAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x, mask = frames.values, frames.mask
        for place, (channels, kernel, stride, padding) in enumerate(c.layers):
            made = 2 * channels if c.activation == "glu" else channels
            layer = Conv1d(made, kernel, stride, padding=padding, dtype=dtype, name=f"conv_{place}")
            x = _activated(layer(x, mask), c.activation)
            lengths = jnp.where(mask.any(-1), layer.frames_out(mask.sum(-1)), 0)
            mask = length_mask(lengths, x.shape[1])
        if c.bottleneck is not None:
            x = self._through_bottleneck(x, c.bottleneck, dtype)
        return Frames(x if c.projection is None else output_map(c.projection, dtype, name="map")(x), mask)

    def _through_bottleneck(self, x: Float[Array, "B M D"], hidden: int, dtype: Any) -> Float[Array, "B M D"]:
        return x + LayerNorm(dtype=dtype, name="bottleneck_norm")(MLP(hidden, dtype=dtype, name="bottleneck")(x))


def _activated(x: jax.Array, name: str | None) -> jax.Array:
    if name == "glu":
        kept, gate = jnp.split(x, 2, axis=-1)
        return kept * jax.nn.sigmoid(gate)
    return x if name is None else activation(name)(x)
