"""Units by a classifier instead of a table: maps with rectifiers onto units and a blank (Gat et al. 2023).

A model of speech with noise and other changes is taught to give the units of the clean one by CTC; the blank then says
nothing new. SpiRit-LM's units at 25 Hz come from such a quantizer. Two faults of its code are not copied: a blank
before the first unit of a row took the unit of the row's last frame, and in a batch blanks took units of other rows.
Here rows stand alone, and blanks in front take the first unit that follows.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear

SLOPE = 0.01


class LinearQuantizerConfig(Config):
    """Frames of `width` channels through maps to `hidden` channels each, then to `units` and the blank.

    The defaults are those of the released one on layer 11 of mHuBERT at 25 Hz.
    """

    width: int = 768
    hidden: tuple[int, ...] = (702, 635)
    units: int = 500
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "at least 1")
        require(all(one >= 1 for one in self.hidden), "hidden", self.hidden, "channels, at least 1 each")
        require(self.units >= 1, "units", self.units, "at least 1")
        compute_dtype(self.dtype)

    def make(self, name: str | None = None) -> "LinearQuantizer":
        """The module."""
        return LinearQuantizer(self, name=name)


def narrowing(width: int, units: int, upstream: int) -> tuple[int, int]:
    """Hidden channels of the published form, by the width of the model whose features they were designed for."""
    excess = upstream - (units + 1)
    return width - excess // 4, width - excess // 2


class LinearQuantizer(nn.Module):
    """Frames to units."""

    config: LinearQuantizerConfig

    @nn.compact
    def __call__(self, frames: Frames) -> Float[Array, "B T V"]:
        """Float32 scores of the units, and last of the blank; training maximises their likelihood by CTC."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = frames.values
        for place, channels in enumerate(c.hidden):
            x = nn.leaky_relu(Linear(channels, dtype=dtype, name=f"hidden_{place}")(x), SLOPE)
        return Linear(c.units + 1, out_names=("vocab",), dtype=dtype, name="out")(x).astype(jnp.float32)

    def encode(self, frames: Frames) -> Codes:
        """A unit `[B, T, 1]` for every frame, 0 where masked."""
        ids = without_blanks(self(frames).argmax(-1), frames.mask, self.config.units)
        return Codes(ids[..., None], frames.mask)


def without_blanks(ids: Int[Array, "B T"], mask: Bool[Array, "B T"], blank: int) -> Int[Array, "B T"]:
    """Every blank as the unit before it in its row, those in front as the first that follows.

    0 where masked, and in a row that holds nothing but blanks.
    """
    said, places = mask & (ids != blank), jnp.arange(ids.shape[1])
    last = jax.lax.cummax(jnp.where(said, places, -1), axis=1)
    first = said.argmax(1)[:, None]
    found = jnp.take_along_axis(ids, jnp.where(last < 0, first, last), axis=1)
    return jnp.where(mask & said.any(1, keepdims=True), found, 0).astype(jnp.int32)
