"""A speech encoder with a head over classes of whole recordings or of windows: emotion, language, style.

References: `Wav2Vec2ForSequenceClassification` of transformers; the style encoder of SpiRit-LM (Nguyen et al. 2024),
which classifies windows of a second.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear


class SSLClassifierConfig(Config):
    """`encoder`, a projection of its frames to `projection` channels, their mean, and `classes`.

    `window`: frames of one mean, of which the last may have fewer; None takes the mean of the recording.
    """

    encoder: SSLEncoderConfig
    classes: int
    projection: int = 256
    window: int | None = None

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "at least two")
        require(self.projection >= 1, "projection", self.projection, "at least one channel")
        require(self.window is None or self.window >= 1, "window", self.window, "None, or frames, at least 1")

    @property
    def hop(self) -> int:
        """Samples from one window to the next; raises `UserError` where the whole recording is one."""
        require(self.window is not None, "window", self.window, "the whole recording is one")
        assert self.window is not None  # for the type checker
        return self.window * self.encoder.hop

    def frame_count(self, n: Any) -> Any:
        """Windows of `n` samples (integer or integer array)."""
        frames = self.encoder.frame_count(n)
        return -(-frames // (self.window or frames))

    def make(self) -> "SSLClassifier":
        """The module."""
        return SSLClassifier(self)


class Classified(NamedTuple):
    """Of every window its mean and float32 scores of the classes; which windows have a real frame."""

    pooled: Float[Array, "B W P"]
    logits: Float[Array, "B W V"]
    mask: Bool[Array, "B W"]


class SSLClassifier(nn.Module):
    """Encoder (parameters under `encoder`, which are those of `config.encoder.make()`), `projector`, `classifier`."""

    config: SSLClassifierConfig

    def setup(self) -> None:
        c, dtype = self.config, compute_dtype(self.config.encoder.dtype)
        self.encoder = c.encoder.make()
        self.projector = Linear(c.projection, ("embed",), (None,), dtype=dtype)
        self.classifier = Linear(c.classes, (None,), ("vocab",), dtype=dtype)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Classified:
        """Windows of right-padded rows; training (`deterministic` False) needs the rng `dropout`."""
        out = self.encoder(samples, mask, deterministic=deterministic)
        pooled, real = window_means(self.projector(out.values), out.mask, self.config.window)
        return Classified(pooled, self.classifier(pooled).astype(jnp.float32), real)


def window_means(
    values: Float[Array, "B T D"], mask: Bool[Array, "B T"], window: int | None
) -> tuple[Float[Array, "B W D"], Bool[Array, "B W"]]:
    """Means over the real frames of every window, 0 for a window without any; None: of all frames."""
    batch, frames, width = values.shape
    window = frames if window is None else window
    values = jnp.pad(jnp.where(mask[..., None], values, 0), ((0, 0), (0, -frames % window), (0, 0)))
    counts = jnp.pad(mask, ((0, 0), (0, -frames % window))).reshape(batch, -1, window).sum(-1)
    sums = values.reshape(batch, -1, window, width).sum(2)
    return sums / jnp.maximum(counts, 1)[..., None].astype(sums.dtype), counts > 0
