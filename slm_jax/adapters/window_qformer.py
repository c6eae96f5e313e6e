"""A Q-Former over windows of frames: a few queries for each.

SALMONN (arXiv 2310.13289)   window 17, one query, tail dropped: 1500 frames give 88
Granite Speech               window 15, three queries, tail filled with zeros that are looked at, `query_scale` 1
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool

from slm_jax.adapters.linear import output_map
from slm_jax.adapters.qformer import QFormer, QFormerConfig, copies, learnt_queries
from slm_jax.adapters.windows import require_tail, window_count, windows
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.norm import LayerNorm


class WindowQFormerConfig(Config):
    """`queries` learnt queries look at each window of `window` frames, and see no other query and no other window.

    `tail`: what becomes of last frames that fill no window: "drop", or "pad" with zeros. A row shorter than one window
    is filled up to one even so, so that whoever speaks is heard. `fill_seen`: queries look at the filled-in zeros too,
    as in `GraniteSpeechEncoderProjector`. `norm`: a LayerNorm of the frames in front; what is filled in is zero behind
    it. It computes in the dtype of `qformer`.
    """

    width: int
    qformer: QFormerConfig = QFormerConfig()
    window: int = 17
    queries: int = 1
    tail: str = "drop"
    fill_seen: bool = False
    norm: bool = False
    query_scale: float = 0.02

    def __post_init__(self) -> None:
        for name in ("width", "window", "queries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require_tail(self.tail)

    def window_count(self, frames: int) -> int:
        """Windows of so many real frames: one at least where there is any."""
        return max(window_count(frames, self.window, self.tail), min(frames, 1))

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        return self.window_count(frames) * self.queries

    def make(self) -> "WindowQFormer":
        """The module."""
        return WindowQFormer(self)


class WindowQFormer(nn.Module):
    """Frames [B, T, D] to [B, windows x queries, width]; weights `queries`, sub-modules `norm`, `qformer`, `map`."""

    config: WindowQFormerConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype = self.config, compute_dtype(self.config.qformer.dtype)
        if c.norm:
            known = zero_padded(frames.values, frames.mask)
            frames = Frames(LayerNorm(dtype=dtype, name="norm")(known), frames.mask)
        short = frames.mask.shape[1] < c.window
        values, mask = windows(frames, c.window, "pad" if short else c.tail)
        batch, count, size, channels = values.shape
        queries = copies(learnt_queries(self, c.queries, c.qformer, c.query_scale), batch * count)
        x = QFormer(c.qformer, name="qformer")(
            queries,
            values.reshape(-1, size, channels),
            None if c.fill_seen else mask.reshape(-1, size),
            deterministic=deterministic,
        )
        x = output_map(c.width, dtype, name="map")(x.reshape(batch, count * c.queries, -1))
        return Frames(x, jnp.repeat(self._real(mask), c.queries, axis=1))

    def _real(self, mask: Bool[Array, "B M W"]) -> Bool[Array, "B M"]:
        """The windows that count: as `window_count` says."""
        if self.config.tail == "pad":
            return mask.any(-1)
        return mask.all(-1) | (mask.any(-1) & (jnp.arange(mask.shape[1]) == 0))
