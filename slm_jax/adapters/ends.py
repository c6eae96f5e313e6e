"""Two learnt vectors around the frames of a clip: where it begins, where it ends (Qwen-Audio, arXiv 2311.07919).

Behind another adapter: `ChainConfig(parts=(PoolAdapterConfig(width=4096), EndsConfig(width=4096)))`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Embed


class EndsConfig(Config):
    """A vector before the frames of a clip and one behind them; a clip without frames gets none.

    Reference: `audio_bos_eos_token` of Qwen-Audio's `AudioEncoder`.
    """

    width: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "must be at least 1")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones."""
        return frames + 2 if frames else 0

    def make(self) -> "Ends":
        """The module."""
        return Ends(self)


class Ends(nn.Module):
    """Frames [B, T, D] to [B, T + 2, D]; sub-module `vectors`, a table of two rows."""

    config: EndsConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at. Raises `UserError` for frames of another width."""
        c, found = self.config, frames.values.shape[-1]
        require(found == c.width, "width", c.width, f"the frames have {found} channels")
        table = Embed(2, c.width, (None, "embed"), dtype=compute_dtype(c.dtype), name="vectors")
        first, last = table(jnp.arange(2))
        count = frames.mask.sum(-1, keepdims=True)
        places = jnp.arange(frames.mask.shape[1] + 2)
        values: jax.Array = zero_padded(frames.values, frames.mask).astype(first.dtype)
        values = jnp.pad(values, ((0, 0), (1, 1), (0, 0)))
        values = jnp.where((places == 0)[:, None], first, values)
        values = jnp.where((places == count + 1)[..., None], last, values)
        return Frames(values, (count > 0) & (places < count + 2))
