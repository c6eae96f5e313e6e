"""AlignFormer: a Q-Former whose windows are the segments of a CTC layer (arXiv 2412.01145).

The paper says that a CTC alignment gives the windows. Where a window begins and ends, and how many queries it has, are
an interpretation: the rule "spoken_spans" gives one window to each emitted label, from its first frame to the frame
before the next label's, so that no frame is left out; other rules are there to compare.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.adapters.ctc import CTCSegmentsConfig
from slm_jax.adapters.linear import output_map
from slm_jax.adapters.qformer import QFormerConfig, copies, learnt_queries
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype


class AlignFormerConfig(Config):
    """`queries` learnt queries look at the frames of each segment, and see no other query and no other segment.

    It computes in the dtype of `qformer`.
    """

    width: int
    segments: CTCSegmentsConfig
    qformer: QFormerConfig = QFormerConfig()
    queries: int = 1
    query_scale: float = 0.02

    def __post_init__(self) -> None:
        for name in ("width", "queries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones, at most."""
        return self.segments.bound(frames) * self.queries

    def make(self) -> "AlignFormer":
        """The module."""
        return AlignFormer(self)


class AlignFormer(nn.Module):
    """Frames [B, T, D] to [B, frames_out(T), width]; weights `queries`, sub-modules `segments`, `qformer`, `map`."""

    config: AlignFormerConfig

    def setup(self) -> None:
        c = self.config
        self.queries = learnt_queries(self, c.queries, c.qformer, c.query_scale)
        self.segments, self.qformer = c.segments.make(), c.qformer.make()
        self.map = output_map(c.width, compute_dtype(c.qformer.dtype))

    def logits(self, frames: Frames) -> Float[Array, "B T V"]:
        """Scores of the labels, for a CTC loss."""
        return self.segments.logits(frames)

    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, segments = self.config, self.segments(frames)
        rows, most = len(segments.ids), c.segments.bound(frames.mask.shape[1])
        members = segments.ids[:, None, :] == jnp.arange(most)[None, :, None]
        queries = copies(jnp.tile(self.queries, (most, 1)), rows)
        sees = jnp.repeat(members, c.queries, axis=1)
        x = self.qformer(queries, frames.values, sees, group=c.queries, deterministic=deterministic)
        real = jnp.arange(most) < segments.counts[:, None]
        return Frames(self.map(x), jnp.repeat(real, c.queries, axis=1))
