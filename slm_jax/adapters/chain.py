"""Several adapters, one after the other."""

from typing import Any

import flax.linen as nn

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames


class ChainConfig(Config):
    """Configs of adapters in order, such as convolution, Transformer, linear map. All are handed the same context."""

    parts: tuple[Any, ...]

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "parts", self.parts, "needs at least one adapter")

    @property
    def width(self) -> int:
        """Channels that come out of the last one."""
        return int(self.parts[-1].width)

    def frames_out(self, frames: int) -> int:
        """How many frames come out of so many real ones; at most, where a part says at most."""
        for part in self.parts:
            frames = part.frames_out(frames)
        return frames

    def make(self) -> "Chain":
        """The module."""
        return Chain(self)


class Chain(nn.Module):
    """Frames through all parts; sub-modules `parts_0`, `parts_1` ..."""

    config: ChainConfig

    def setup(self) -> None:
        self.parts = [part.make() for part in self.config.parts]

    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """What the last part makes."""
        for part in self.parts:
            frames = part(frames, context, deterministic=deterministic)
        return frames
