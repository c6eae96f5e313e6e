"""A Q-Former that looks at several layers of an encoder with queries of its own for each (DeSTA2, arXiv 2409.20007).

One Q-Former is shared by all layers. What the queries found in each layer is added up with weights that every query
has for itself, a softmax over the layers; a LayerNorm and a map follow.

The released code declares its trunk, a `BertEncoder` of transformers, to be a decoder and gives it no mask. The
attention in which DeSTA2.5 pins it ("eager") then lets every query see every other, and so does this; the fused one
("sdpa") would be causal and give other vectors.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.adapters.linear import output_map
from slm_jax.adapters.qformer import QFormer, QFormerConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.norm import LayerNorm

BERT = QFormerConfig(context_width=768, query_norm=False)
"""The trunk of DeSTA2 behind Whisper-small: two layers, and BERT's feed-forward width whatever the encoder's is."""


class LayerwiseQFormerConfig(Config):
    """`queries` learnt queries for each of `layers` layers, whose channels stand side by side in the frames.

    `qformer.context_width`: channels of one layer (`encoders.layer_states` puts them side by side). `query_scale`:
    deviation of the drawn queries. It computes in the dtype of `qformer`.
    """

    width: int
    layers: int = 4
    qformer: QFormerConfig = BERT
    queries: int = 64
    query_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "queries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.query_scale > 0, "query_scale", self.query_scale, "must be above 0")

    def frames_out(self, frames: int) -> int:
        """As many as there are queries; none where there is nothing to look at."""
        return self.queries if frames else 0

    def make(self) -> "LayerwiseQFormer":
        """The module."""
        return LayerwiseQFormer(self)


class LayerwiseQFormer(nn.Module):
    """Frames [B, T, L E] to [B, M, width]; weights `queries` [L, M, D], `layer_weights` [M, L].

    Sub-modules `qformer`, `norm`, `map`.
    """

    config: LayerwiseQFormerConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype = self.config, compute_dtype(self.config.qformer.dtype)
        queries = self.param("queries", self._drawn(c.query_scale), (c.layers, c.queries, c.qformer.width), jnp.float32)
        weights = self.param("layer_weights", self._drawn(0.0), (c.queries, c.layers), jnp.float32)
        found = self._found(queries, frames, deterministic)
        x = jnp.einsum("ml,lbmd->bmd", jax.nn.softmax(weights, axis=-1).astype(found.dtype), found)
        x = output_map(c.width, dtype, name="map")(LayerNorm(dtype=dtype, name="norm")(x))
        real = frames.mask.any(-1, keepdims=True)
        return Frames(x, jnp.broadcast_to(real, (len(real), c.queries)))

    def _found(self, queries: Float[Array, "L M D"], frames: Frames, deterministic: bool) -> Float[Array, "L B M D"]:
        """What the queries of each layer make of it: all layers in one pass, as rows of one batch."""
        c, (rows, time, channels) = self.config, frames.values.shape
        rule = f"{c.layers} layers of {c.qformer.context_width} channels side by side"
        require(channels == c.layers * c.qformer.context_width, "channels of the frames", channels, rule)
        layers = jnp.moveaxis(frames.values.reshape(rows, time, c.layers, -1), 2, 0).reshape(c.layers * rows, time, -1)
        asked = jnp.repeat(queries, rows, axis=0)
        mask = jnp.tile(frames.mask, (c.layers, 1))
        found = QFormer(c.qformer, name="qformer")(asked, layers, mask, deterministic=deterministic)
        return found.reshape(c.layers, rows, *found.shape[1:])

    @staticmethod
    def _drawn(scale: float) -> Any:
        init = nn.initializers.normal(scale) if scale else nn.initializers.zeros
        return nn.with_logical_partitioning(init, (None,) * (3 if scale else 2))
