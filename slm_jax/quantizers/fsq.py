"""Finite scalar quantization: each of a few channels is rounded to a few levels (Mentzer et al. 2023)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Frames
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.quantizers.estimators import straight_through
from slm_jax.quantizers.residual import Quantized

EDGE = 1e-3
"""How far the bounding function reaches beyond its outermost levels."""


class FSQConfig(Config):
    """`levels` of each channel; latents of another `width` are mapped to so many channels and back."""

    width: int
    levels: tuple[int, ...] = (8, 5, 5, 5)

    stride = 1
    books = 1
    counted = False

    def __post_init__(self) -> None:
        require(bool(self.levels) and min(self.levels) > 1, "levels", self.levels, "two or more of every channel")

    @property
    def size(self) -> int:
        """Entries of the codebook that the levels imply."""
        return math.prod(self.levels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of the codebook behind every column of tokens."""
        return (self.size,)

    @property
    def bits(self) -> float:
        """Of one frame of tokens."""
        return math.log2(self.size)

    def columns(self, books: int | None = None) -> int:
        """One; raises `UserError` for more books."""
        require(books in (None, 1), "books", books, "the quantizer has 1")
        return 1

    def moved(self, variables: dict[str, Any], seen: Any) -> dict[str, Any]:
        """Nothing is counted."""
        return {}

    def make(self, name: str | None = None) -> "FSQ":
        """The module."""
        return FSQ(self, name=name)


class FSQ(nn.Module):
    """Latents to ids and back; there is no table and nothing to commit to."""

    config: FSQConfig

    def setup(self) -> None:
        channels, width = len(self.config.levels), self.config.width
        self.into = Conv1d(channels, 1) if width != channels else None
        self.back = Conv1d(width, 1) if width != channels else None

    def __call__(self, frames: Frames, *, rows: Int[Array, "B"] | None = None, deterministic: bool = True) -> Quantized:
        """As `ResidualVQ`, with losses of 0."""
        bounded = self._bounded(frames)
        rounded = straight_through(bounded, jnp.round(bounded))
        none = jnp.zeros((*frames.mask.shape, 1))
        used = jnp.ones((frames.mask.shape[0], 1), bool)
        values = self._back(rounded, frames.mask)
        return Quantized(values, self._ids(rounded)[..., None], used, none, none, None, values)

    def encode(self, frames: Frames, books: int | None = None) -> Codes:
        """One id per latent."""
        self.config.columns(books)
        return Codes(self._ids(jnp.round(self._bounded(frames)))[..., None], frames.mask)

    def decode(self, codes: Codes) -> Frames:
        """What ids stand for."""
        levels = np.array(self.config.levels)
        digits = codes.ids // self._places() % levels
        return Frames(self._back((digits - levels // 2).astype(jnp.float32), codes.mask), codes.mask)

    def _bounded(self, frames: Frames) -> Float[Array, "B T C"]:
        """Channels between the outermost levels; an even number of levels is shifted by half a step."""
        values = zero_padded(frames.values, frames.mask).astype(jnp.float32)
        values = values if self.into is None else self.into(values)
        levels = np.array(self.config.levels)
        half, offset = (levels - 1) * (1 + EDGE) / 2, np.where(levels % 2 == 0, 0.5, 0.0)
        shift = np.arctanh(offset / half)
        return jnp.tanh(values + shift) * half - offset

    def _back(self, rounded: Float[Array, "B T C"], mask: Array) -> Float[Array, "B T D"]:
        """Levels as numbers in [-1, 1], mapped back."""
        values = rounded / (np.array(self.config.levels) // 2)
        return zero_padded(values if self.back is None else self.back(values), mask)

    def _ids(self, rounded: Float[Array, "B T C"]) -> Int[Array, "B T"]:
        digits = (rounded + np.array(self.config.levels) // 2).astype(jnp.int32)
        return (digits * self._places()).sum(-1)

    def _places(self) -> np.ndarray:
        """What each channel's level is worth in an id; the first channel is the lowest digit."""
        return np.cumprod([1, *self.config.levels[:-1]])
