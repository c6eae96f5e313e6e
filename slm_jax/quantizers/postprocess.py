"""What is done to frames between an encoder (or MFCC) and k-means: normalising, then smoothing over time.

The treatment moves unit scores as much as the choice of features does, so both sides of a comparison get the same one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.quantizers.nearest import AnyArray

EPSILON = 1e-5


class PostprocessConfig(Config):
    """`normalise`: "none"; "standardise", each dimension with the mean and deviation of a corpus (AudioLM, w2v-BERT);
    "layer_norm", each frame by its own. `smooth`: odd number of frames averaged around each, 1 for none."""

    normalise: str = "none"
    smooth: int = 1

    def __post_init__(self) -> None:
        known = ("none", "standardise", "layer_norm")
        require(self.normalise in known, "normalise", self.normalise, f"must be one of {', '.join(known)}")
        require(self.smooth >= 1 and self.smooth % 2 == 1, "smooth", self.smooth, "must be an odd number of frames")


class Statistics(NamedTuple):
    """Mean and standard deviation of each dimension over a corpus."""

    mean: Float[AnyArray, "D"]
    std: Float[AnyArray, "D"]


def fit_statistics(features: Float[AnyArray, "T D"]) -> Statistics:
    """Statistics of frames, in float64 and then float32; a dimension that never varies gets deviation 1."""
    features = np.asarray(features, np.float64)
    require(len(features) > 0, "features", features.shape, "must hold at least one frame")
    std = features.std(0)
    constant = std <= 1e-12 + 1e-7 * np.abs(features).max(0)
    return Statistics(features.mean(0).astype(np.float32), np.where(constant, 1.0, std).astype(np.float32))


def identity_statistics(width: int) -> Statistics:
    """Statistics that change nothing."""
    return Statistics(np.zeros(width, np.float32), np.ones(width, np.float32))


def postprocess(config: PostprocessConfig, frames: Frames, statistics: Statistics | None = None) -> Frames:
    """The treated frames in float32, masked ones zero; `statistics` are needed to standardise."""
    values = frames.values.astype(jnp.float32)
    if config.normalise == "standardise":
        require(statistics is not None, "statistics", statistics, "are needed to standardise")
        values = (values - statistics.mean) / statistics.std
    elif config.normalise == "layer_norm":
        centred = values - values.mean(-1, keepdims=True)
        values = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    return Frames(smooth_frames(values, frames.mask, config.smooth), frames.mask)


def smooth_frames(values: Float[Array, "B T D"], mask: Bool[Array, "B T"], window: int) -> Float[Array, "B T D"]:
    """The mean over the real frames among the `window` (odd) around each; at the ends over those there are."""
    real = mask[..., None]
    values = jnp.where(real, values, 0.0)
    if window == 1:
        return values
    weights = real.astype(values.dtype)
    means = _window_sum(values, window) / jnp.maximum(_window_sum(weights, window), 1.0)
    return jnp.where(real, means, 0.0)


def _window_sum(x: Float[Array, "B T D"], window: int) -> Float[Array, "B T D"]:
    frames, reach = x.shape[1], window // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return sum(padded[:, shift : shift + frames] for shift in range(window))
