"""Two encoders through an adapter each, then side by side (WavLLM, arXiv 2404.00656): a join of a `SpeechAwareLM`."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded


class StreamsConfig(Config):
    """An adapter for each stream; the one that lasts longer is cut to the other, and their channels stand together."""

    first: Any
    second: Any

    @property
    def width(self) -> int:
        """Channels that come out."""
        return int(self.first.width + self.second.width)

    def frames_of(self, first: int, second: int) -> int:
        """How many come of streams of so many frames each."""
        return min(int(self.first.frames_out(first)), int(self.second.frames_out(second)))

    def make(self) -> "Streams":
        """The module."""
        return Streams(self)


class Streams(nn.Module):
    """Frames [B, T, D] and Frames [B, S, E] to frames that are real where both are; sub-modules `first`, `second`."""

    config: StreamsConfig

    def setup(self) -> None:
        self.first, self.second = self.config.first.make(), self.config.second.make()

    def __call__(self, frames: Frames, other: Frames, *, deterministic: bool = True) -> Frames:
        """What both adapters make."""
        found = [
            adapter(stream, deterministic=deterministic)
            for adapter, stream in ((self.first, frames), (self.second, other))
        ]
        length = min(one.mask.shape[1] for one in found)
        mask = found[0].mask[:, :length] & found[1].mask[:, :length]
        values = [zero_padded(one.values[:, :length], mask) for one in found]
        return Frames(jnp.concatenate(values, axis=-1), mask)
