"""CTC compression: frames whose labels say the same become one (Gaido et al. 2021; Speech-LLaMA, arXiv 2307.03917)."""

from fractions import Fraction
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.adapters.linear import output_map
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.ctc_head import CTCHead
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.token_compression.ctc import RULES, Segments, segment_means, segments_of


class CTCSegmentsConfig(Config):
    """A CTC layer over `vocabulary` labels, blank being 0, and the `rule` that makes segments of its best labels.

    Rules are those of `token_compression.ctc`. `keep`: at most this share of the real frames, rounded up, become
    segments; frames of what is more are counted into the last one. `hidden`: of the CTC layer, as in `nn.ctc_head`.
    """

    vocabulary: int
    rule: str
    keep: float = 1.0
    hidden: int = 0

    def __post_init__(self) -> None:
        require(self.vocabulary >= 2, "vocabulary", self.vocabulary, "labels, the blank among them: at least 2")
        require(self.rule in RULES, "rule", self.rule, f"must be one of {', '.join(RULES)}")
        require(0.001 <= self.keep <= 1, "keep", self.keep, "a share from 0.001 to 1")
        require(self.hidden >= 0, "hidden", self.hidden, "channels of the CTC layer's convolution, or 0 for none")

    def bound(self, frames: int) -> int:
        """The most segments of so many real frames."""
        share = Fraction(self.keep).limit_denominator(1000)  # 0.1 of 30 is 3 and no more
        return -(-frames * share.numerator // share.denominator)

    def make(self) -> "CTCSegments":
        """The module."""
        return CTCSegments(self)


class CTCSegments(nn.Module):
    """Segments of frames by their best labels; sub-module `head`, which only `logits` hands a gradient."""

    config: CTCSegmentsConfig

    def setup(self) -> None:
        self.head = CTCHead(self.config.vocabulary, self.config.hidden)

    def logits(self, frames: Frames) -> Float[Array, "B T V"]:
        """Scores of the labels, float32, for a CTC loss."""
        return self.head(zero_padded(frames.values, frames.mask).astype(jnp.float32), frames.mask)

    def __call__(self, frames: Frames) -> Segments:
        """The segment of each frame, within the bound of its row."""
        labels = jnp.argmax(self.logits(frames), axis=-1)
        bounds = np.asarray([self.config.bound(n) for n in range(frames.mask.shape[1] + 1)])
        limit = jnp.maximum(jnp.asarray(bounds)[frames.mask.sum(-1)], 1)
        return segments_of(labels, frames.mask, rule=self.config.rule, limit=limit)


class CTCAdapterConfig(Config):
    """The mean of the frames of each CTC segment, then a map to `width`."""

    width: int
    segments: CTCSegmentsConfig
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "must be at least 1")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones, at most."""
        return self.segments.bound(frames)

    def make(self) -> "CTCAdapter":
        """The module."""
        return CTCAdapter(self)


class CTCAdapter(nn.Module):
    """Frames [B, T, D] to [B, frames_out(T), width]; sub-modules `segments`, `map`."""

    config: CTCAdapterConfig

    def setup(self) -> None:
        self.segments = self.config.segments.make()
        self.map = output_map(self.config.width, compute_dtype(self.config.dtype))

    def logits(self, frames: Frames) -> Float[Array, "B T V"]:
        """Scores of the labels, for a CTC loss."""
        return self.segments.logits(frames)

    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        segments, most = self.segments(frames), self.config.frames_out(frames.mask.shape[1])
        values = segment_means(zero_padded(frames.values, frames.mask), segments.ids, most)
        return Frames(self.map(values), jnp.arange(most) < segments.counts[:, None])
