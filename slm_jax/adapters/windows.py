"""Neighbouring frames in windows without overlap: a reshape, with one rule for frames that fill no window."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded

TAILS = ("drop", "pad")
"""What becomes of the last frames where they are too few for a window: left out, or filled up with zeros."""


def require_tail(tail: str) -> None:
    """Raises `UserError` for a rule that is not in `TAILS`."""
    require(tail in TAILS, "tail", tail, f"must be one of {', '.join(TAILS)}")


def window_count(frames: int, size: int, tail: str) -> int:
    """Windows of `size` frames that so many frames make."""
    return frames // size if tail == "drop" else -(-frames // size)


def windows(frames: Frames, size: int, tail: str) -> tuple[Float[Array, "B M W D"], Bool[Array, "B M W"]]:
    """Windows of `size` frames, with zeros for frames that are not real, and which of their frames are."""
    batch, length, width = frames.values.shape
    count = window_count(length, size, tail)
    missing, used = max(count * size - length, 0), count * size
    values = jnp.pad(zero_padded(frames.values, frames.mask), ((0, 0), (0, missing), (0, 0)))[:, :used]
    mask = jnp.pad(frames.mask, ((0, 0), (0, missing)))[:, :used]
    return values.reshape(batch, count, size, width), mask.reshape(batch, count, size)
