"""An encoder of speech that is units already: a vector for each (DiscreteSLU, Shon et al. 2024)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Embed


class UnitEmbeddingConfig(Config):
    """Vectors of `width` channels for ids in `[0, units)`.

    It is exchangeable with encoders of samples but for what it reads, as `reads` says: a clip is a row of ids, and
    each of them a frame. `init_scale`: standard deviation of the first vectors; 1 is that of `torch.nn.Embedding`.
    """

    units: int
    width: int
    init_scale: float = 1.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("units", "width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.init_scale > 0, "init_scale", self.init_scale, "must be above 0")
        compute_dtype(self.dtype)

    def make(self) -> "UnitEmbedding":
        """The module."""
        return UnitEmbedding(self)

    def frame_count(self, n: Any) -> Any:
        """Frames of `n` ids (integer or integer array): as many."""
        return n

    @property
    def reads(self) -> str:
        """The dtype of what it reads; encoders of samples read float32."""
        return "int32"

    @property
    def layers(self) -> int:
        """There are none above the vectors."""
        return 0

    @property
    def hop(self) -> int:
        """Ids from one frame to the next."""
        return 1


class UnitEmbedding(nn.Module):
    """Ids [B, U] to [B, U, width]; sub-module `units`."""

    config: UnitEmbeddingConfig

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B U"],
        mask: Bool[Array, "B U"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """A vector for each id, 0 where masked. `layer`: 0 is the only one. Raises `UserError` for another."""
        c = self.config
        require(layer in (None, 0), "layer", layer, "an embedding of units has layer 0 only")
        real = jnp.ones(ids.shape, bool) if mask is None else mask
        init = nn.initializers.normal(c.init_scale)
        table = Embed(c.units, c.width, embedding_init=init, dtype=compute_dtype(c.dtype), name="units")
        values = zero_padded(table(ids), real)
        return EncoderOutput(values, real, values, values[None] if collect else None)
