"""No adapter: units whose vectors are rows of a language model's own table (vocabulary expansion, read only).

With `UnitEmbeddingConfig(width=lm.width)` before it, the text model reads units as it reads words, from rows that its
table has besides. Its head has none for them, tied to the table or not: it is asked for words alone. A model that is to
say units too gets rows in both by `sequence_models.expansion.expanded`.
"""

from typing import Any

import flax.linen as nn

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames


class RowsConfig(Config):
    """Frames of `width` channels as they are."""

    width: int

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "must be at least 1")

    def frames_out(self, frames: int) -> int:
        """As many frames as go in."""
        return frames

    def make(self) -> "Rows":
        """The module."""
        return Rows(self)


class Rows(nn.Module):
    """Frames [B, T, width] as they are; there are no weights."""

    config: RowsConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at. Raises `UserError` for frames of another width."""
        width = frames.values.shape[-1]
        require(width == self.config.width, "width", self.config.width, f"what comes in has {width} channels")
        return frames
