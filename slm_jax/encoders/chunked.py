"""Clips longer than an encoder's window: cut into windows that are encoded as one batch, each on its own.

Nothing passes from one window to the next, and frames that would straddle two do not exist: with 400 samples to a
frame every 320, each 30 s are 1,499 frames. A window that the encoder's frames fill whole loses nothing.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.errors import require
from slm_jax.encoders.around import AroundEncoderConfig
from slm_jax.encoders.output import EncoderOutput


class ChunkedEncoderConfig(AroundEncoderConfig):
    """`encoder` on windows of `window` samples, one after the other; parameters are the encoder's, under `encoder`."""

    window: int = 480_000

    def __post_init__(self) -> None:
        fits = self.window > 0 and self.encoder.frame_count(self.window) > 0
        require(fits, "window", self.window, "must hold at least one frame of the encoder")

    def make(self) -> "ChunkedEncoder":
        """The module."""
        return ChunkedEncoder(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array): those of all windows together."""
        full, rest = n // self.window, n % self.window
        return full * self.encoder.frame_count(self.window) + (rest > 0) * self.encoder.frame_count(rest)


class ChunkedEncoder(nn.Module):
    """Right-padded clips of any length to the frames of their windows, joined."""

    config: ChunkedEncoderConfig

    def setup(self) -> None:
        self.encoder = self.config.encoder.make()

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """As the encoder alone for clips of at most one window."""
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        count = len(windows_of(samples.shape[1], self.config.window))
        if count == 1:
            return self.encoder(samples, mask, layer=layer, collect=collect, deterministic=deterministic)
        pieces, real = in_windows(samples, self.config.window), in_windows(mask, self.config.window)
        out = self.encoder(pieces, real, layer=layer, collect=collect, deterministic=deterministic)
        # an encoder that centres its frames has one of no samples
        heard = out.mask & real.any(axis=1, keepdims=True)
        frames = self.config.frame_count(samples.shape[1])
        hidden = None if out.hidden is None else jax.vmap(lambda x: joined(x, count, frames))(out.hidden)
        values, heard, features = (joined(x, count, frames) for x in (out.values, heard, out.features))
        return EncoderOutput(values, heard, features, hidden)


def windows_of(samples: int, window: int) -> tuple[tuple[int, int], ...]:
    """First sample and the one past the last of each window of a clip; the last one holds what is left."""
    return tuple((start, min(start + window, samples)) for start in range(0, samples, window))


def in_windows(x: Array, window: int) -> Array:
    """`[B, N]` as `[B W, window]`, the windows of a clip in neighbouring rows, zeros after its end."""
    count = len(windows_of(x.shape[1], window))
    return jnp.pad(x, ((0, 0), (0, count * window - x.shape[1]))).reshape(-1, window)


def joined(x: Array, count: int, frames: int) -> Array:
    """`[B W, T, ...]` as `[B, frames, ...]`, `count` windows W to a clip. Only its last window has fewer than T."""
    return x.reshape(-1, count * x.shape[1], *x.shape[2:])[:, :frames]
