"""A learnt mixture of an encoder's layers behind it, where all of them come side by side (`encoders.layer_states`).

What `encoders.weighted_layers` does inside of an encoder, for one that is frozen and whose states are kept (WavLLM's
reading of WavLM, arXiv 2404.00656).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded


class LayerMixConfig(Config):
    """The sum of `layers` states of `width` channels, weighed by a softmax over weights that begin equal."""

    layers: int
    width: int

    def __post_init__(self) -> None:
        for name in ("layers", "width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")

    def frames_out(self, frames: int) -> int:
        """As many frames as go in."""
        return frames

    def make(self) -> "LayerMix":
        """The module."""
        return LayerMix(self)


class LayerMix(nn.Module):
    """Frames [B, T, L D] to [B, T, D]; parameter `weights`."""

    config: LayerMixConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at. Raises `UserError` for frames of another width."""
        c, found = self.config, frames.values.shape[-1]
        require(found == c.layers * c.width, "width", c.width, f"times {c.layers} layers: the frames have {found}")
        init = nn.with_logical_partitioning(nn.initializers.ones, (None,))
        shares = jax.nn.softmax(self.param("weights", init, (c.layers,), jnp.float32))
        states = zero_padded(frames.values, frames.mask).reshape(*frames.mask.shape, c.layers, c.width)
        return Frames(jnp.einsum("btld,l->btd", states, shares.astype(states.dtype)), frames.mask)
