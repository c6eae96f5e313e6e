"""What is done to features before they are clustered: the same for every kind of feature, so that comparisons are fair.

Normalisation maps each frame; smoothing is the mean over a window of neighbouring real frames of the same row.
"""

from collections.abc import Iterable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames, pytree_dataclass, static

KINDS = ("none", "standardise", "whiten", "layer_norm")
FLOOR = 1e-5


class PostprocessConfig(Config):
    """`normalise`: "none"; "standardise" (each dimension to mean 0 and variance 1 over the fitted frames); "whiten"
    (covariance to the identity); "layer_norm" (each frame to mean 0 and variance 1). `smooth`: frames of the window,
    odd, 1 for none.
    """

    normalise: Literal["none", "standardise", "whiten", "layer_norm"] = "none"
    smooth: int = 1

    def __post_init__(self) -> None:
        require(self.normalise in KINDS, "normalise", self.normalise, f"must be one of {', '.join(KINDS)}")
        require(self.smooth >= 1 and self.smooth % 2 == 1, "smooth", self.smooth, "must be odd and at least 1")

    def fit(self, frames: Float[np.ndarray, "T D"]) -> "Postprocess":
        """The transform with its statistics taken from `frames`."""
        width = frames.shape[1]
        shift, scale = np.zeros(width, np.float32), np.eye(width, dtype=np.float32)
        if self.normalise in ("standardise", "whiten"):
            shift = frames.mean(0, dtype=np.float64)
        if self.normalise == "standardise":
            std = frames.std(0, dtype=np.float64)
            scale = np.diag(1 / np.where(std < FLOOR, 1.0, std))  # what never varied is not blown up later
        if self.normalise == "whiten":
            values, vectors = np.linalg.eigh(np.cov(frames - shift, rowvar=False, dtype=np.float64))
            scale = vectors / np.sqrt(np.maximum(values, FLOOR)) @ vectors.T
        return Postprocess(jnp.asarray(shift, jnp.float32), jnp.asarray(scale, jnp.float32), self)


@pytree_dataclass
class Postprocess:
    """A fitted transform: `(x - shift) @ scale`, layer norm where asked for, then smoothing."""

    shift: Float[Array, "D"]
    scale: Float[Array, "D D"]
    config: PostprocessConfig = static(default=PostprocessConfig())

    def __call__(self, frames: Frames) -> Frames:
        """Transformed frames in float32, zero where masked."""
        x = frames.values.astype(jnp.float32)
        if self.config.normalise in ("standardise", "whiten"):
            x = jnp.matmul(x - self.shift, self.scale, precision=jax.lax.Precision.HIGHEST)
        elif self.config.normalise == "layer_norm":
            x = x - x.mean(-1, keepdims=True)
            x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + FLOOR)
        real = frames.mask[..., None]
        return Frames(jnp.where(real, smoothed(jnp.where(real, x, 0), real, self.config.smooth), 0), frames.mask)


@jax.jit
def treated(post: Postprocess, frames: Frames) -> Frames:
    """`post(frames)`, compiled once for every shape and kind of treatment."""
    return post(frames)


def smoothed(x: Float[Array, "B T D"], real: Array, window: int) -> Float[Array, "B T D"]:
    """Mean over the real frames among `window` neighbours; `x` must be zero where `real [B, T, 1]` is False."""
    if window == 1:
        return x
    reach = window // 2

    def total(values: Array) -> Array:
        padded = jnp.pad(values, ((0, 0), (reach, reach), (0, 0)))
        return sum(padded[:, i : i + values.shape[1]] for i in range(window))

    return total(x) / jnp.maximum(total(real.astype(x.dtype)), 1)


def real_frames(batches: Iterable[Frames]) -> Float[np.ndarray, "T D"]:
    """The unmasked frames of all batches, one after the other."""
    return np.concatenate([np.asarray(frames.values)[np.asarray(frames.mask)] for frames in batches])
