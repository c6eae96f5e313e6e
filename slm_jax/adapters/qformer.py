"""The Q-Former: a few queries look at many frames (BLIP-2, arXiv 2301.12597; `Blip2QFormerModel` of transformers)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.adapters.linear import output_map
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.attention import Attention
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import MLP, activation
from slm_jax.nn.norm import LayerNorm

NORMS = (None, "before", "after")
"""Where a LayerNorm stands about the map to the language model's width."""


class QFormerConfig(Config):
    """Shape of the trunk; the defaults are SALMONN's.

    `context_width`: channels of what the queries look at. `cross_every`: every so many layers, the first among them,
    look at it. `query_norm`: the queries pass a LayerNorm first. `init_scale`: deviation of the drawn weights.
    """

    context_width: int = 2048
    width: int = 768
    layers: int = 2
    heads: int = 12
    hidden: int = 3072
    cross_every: int = 1
    query_norm: bool = True
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_scale: float = 0.02
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("context_width", "width", "layers", "heads", "hidden", "cross_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the width {self.width}")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        activation(self.activation)
        compute_dtype(self.dtype)

    def make(self) -> "QFormer":
        """The module."""
        return QFormer(self)


class QFormer(nn.Module):
    """Queries [B, M, D] to [B, M, D]; sub-modules `query_norm` (where there is one), `layer_0` ..."""

    config: QFormerConfig

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B M D"],
        context: Float[Array, "B T E"],
        mask: Bool[Array, "B T"] | Bool[Array, "B M T"] | None = None,
        *,
        group: int | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B M D"]:
        """`mask` says which of the context is real, or what each query sees of it; None: all.

        `group`: the queries stand in groups of so many, and see no other query. A query that sees nothing of the
        context gets finite values that mean nothing. Raises `UserError` for a context of other channels.
        """
        c, found = self.config, context.shape[-1]
        require(found == c.context_width, "context_width", c.context_width, f"the context has {found} channels")
        if mask is not None:
            context = zero_padded(context, mask if mask.ndim == 2 else mask.any(1))
        norm = LayerNorm(c.norm_epsilon, dtype=compute_dtype(c.dtype), name="query_norm")
        x = norm(queries) if c.query_norm else queries.astype(compute_dtype(c.dtype))
        x = nn.Dropout(c.dropout, name="dropout")(x, deterministic=deterministic)
        for place in range(c.layers):
            layer = QFormerLayer(c, place % c.cross_every == 0, name=f"layer_{place}")
            x = layer(x, context, mask, group or x.shape[1], deterministic=deterministic)
        return x


class QFormerLayer(nn.Module):
    """Queries among themselves, with `cross` over the context too, then a feed-forward block; norms behind the sums."""

    config: QFormerConfig
    cross: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B M D"],
        context: Float[Array, "B T E"],
        mask: Bool[Array, "B T"] | Bool[Array, "B M T"] | None,
        group: int,
        *,
        deterministic: bool,
    ) -> Float[Array, "B M D"]:
        c = self.config
        y, _ = self._attention("attention")(x.reshape(-1, group, c.width), deterministic=deterministic)
        x = self._added(x, y.reshape(x.shape), "attention", deterministic)
        if self.cross:
            y, _ = self._attention("cross_attention")(x, context, mask=mask, deterministic=deterministic)
            x = self._added(x, y, "cross_attention", deterministic)
        draw = nn.initializers.normal(c.init_scale)
        mlp = MLP(c.hidden, c.activation, kernel_init=draw, dtype=compute_dtype(c.dtype), name="mlp")
        return self._added(x, mlp(x), "mlp", deterministic)

    def _attention(self, name: str) -> Attention:
        c = self.config
        return Attention(
            c.heads,
            c.width // c.heads,
            dropout=c.attention_dropout,
            kernel_init=nn.initializers.normal(c.init_scale),
            dtype=compute_dtype(c.dtype),
            name=name,
        )

    def _added(self, x: jax.Array, y: jax.Array, name: str, deterministic: bool) -> jax.Array:
        c = self.config
        y = nn.Dropout(c.dropout, name=f"{name}_dropout")(y, deterministic=deterministic)
        return LayerNorm(c.norm_epsilon, dtype=compute_dtype(c.dtype), name=f"{name}_norm")(x + y)


class QFormerAdapterConfig(Config):
    """`queries` learnt queries look at all real frames: so many frames come out however many go in.

    `norm`: a LayerNorm "before" or "after" (SLAM-LLM) the map to `width`, or None. `query_scale`: deviation of the
    drawn queries. It computes in the dtype of `qformer`.
    """

    width: int
    qformer: QFormerConfig = QFormerConfig()
    queries: int = 64
    norm: str | None = None
    query_scale: float = 0.02

    def __post_init__(self) -> None:
        for name in ("width", "queries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.norm in NORMS, "norm", self.norm, "must be before, after or None")

    def frames_out(self, frames: int) -> int:
        """As many as there are queries; none where there is nothing to look at."""
        return self.queries if frames else 0

    def make(self) -> "QFormerAdapter":
        """The module."""
        return QFormerAdapter(self)


class QFormerAdapter(nn.Module):
    """Frames [B, T, D] to [B, M, width]; weights `queries`, sub-modules `qformer`, `norm`, `map`."""

    config: QFormerAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype, rows = self.config, compute_dtype(self.config.qformer.dtype), len(frames.values)
        queries = learnt_queries(self, c.queries, c.qformer, c.query_scale)
        qformer = QFormer(c.qformer, name="qformer")
        x = qformer(copies(queries, rows), frames.values, frames.mask, deterministic=deterministic)
        x = LayerNorm(dtype=dtype, name="norm")(x) if c.norm == "before" else x
        x = output_map(c.width, dtype, name="map")(x)
        x = LayerNorm(dtype=dtype, name="norm")(x) if c.norm == "after" else x
        real = frames.mask.any(-1, keepdims=True)
        return Frames(x, jnp.broadcast_to(real, (rows, c.queries)))


def learnt_queries(module: nn.Module, count: int, config: QFormerConfig, scale: float) -> Float[Array, "M D"]:
    """The weight `queries` of a module."""
    draw = nn.with_logical_partitioning(nn.initializers.normal(scale), (None, "embed"))
    return module.param("queries", draw, (count, config.width), jnp.float32)


def copies(queries: Float[Array, "M D"], rows: int) -> Float[Array, "B M D"]:
    """The same queries for every row."""
    return jnp.broadcast_to(queries, (rows, *queries.shape))
