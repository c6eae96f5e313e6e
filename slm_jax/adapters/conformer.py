"""Conformer layers and a map to the language model: the modality adapter of BESTOW (NeMo's `ConformerEncoder`)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from slm_jax.adapters.linear import output_map
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conformer import ConformerShape
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.striding import Striding


class ConformerAdapterConfig(Config):
    """`inner` layers between a map to their width and one to `width`.

    `factor`: frames that become one by strided convolutions of `channels` over the channels of what comes in, a power
    of 2; 1 has a linear map in their place. The released configs have 8 on top of the encoder's 8, later ones 1.
    `scale_input`: as in `encoders.fastconformer`. With `inner.chunk` it hears chunk by chunk.
    """

    width: int
    inner: ConformerShape = ConformerShape(layers=2, width=512, heads=8, hidden=2048)
    factor: int = 1
    channels: int = 256
    scale_input: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "factor", "channels"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.factor & (self.factor - 1) == 0, "factor", self.factor, "must be a power of 2")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        return -(-frames // self.factor)

    def make(self) -> "ConformerAdapter":
        """The module."""
        return ConformerAdapter(self)


class ConformerAdapter(nn.Module):
    """Frames [B, T, D] to [B, ceil(T / factor), width]; sub-modules `striding` or `enter`, `conformer`, `map`."""

    config: ConformerAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at: this adapter is not conditioned."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        inner, read = c.inner.replace(dtype=c.dtype), frames.values.shape[-1]
        if c.factor > 1:
            striding = Striding(read, inner.width, c.channels, c.factor, dtype, name="striding")
            x = striding(frames)
        else:
            enter = Linear(inner.width, out_names=("embed",), dtype=dtype, name="enter")
            x = Frames(enter(zero_padded(frames.values, frames.mask)), frames.mask)
        scale = inner.width**0.5 if c.scale_input else 1.0
        x = Frames(x.values * jnp.asarray(scale, dtype), x.mask)
        x = inner.make("conformer")(x, deterministic=deterministic)
        return Frames(output_map(c.width, dtype, name="map")(x.values), x.mask)
