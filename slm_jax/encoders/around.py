"""What encoders around another one pass on of it."""

from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.contracts import EncoderConfig


class AroundEncoderConfig(Config):
    """Frames as `encoder` gives them, unless a subclass says otherwise."""

    encoder: EncoderConfig

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        return self.encoder.frame_count(n)

    @property
    def layers(self) -> int:
        """Layers of the encoder."""
        return self.encoder.layers

    @property
    def width(self) -> int:
        """Width of the frames."""
        return self.encoder.width

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.encoder.hop
