"""A codec's latents as an encoder of speech: what its quantizer would be given, for adapters and language models."""

from typing import Any

from jaxtyping import Array, Bool, Float

from slm_jax.assemblies.codec import Codec, CodecConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput


class CodecLatentsConfig(Config):
    """The latents of `codec`, whose weights lie where an encoder's do; its quantizer and decoder are not used."""

    codec: CodecConfig

    def make(self) -> "CodecLatents":
        """The module."""
        return CodecLatents(self.codec)

    def frame_count(self, n: Any) -> Any:
        """Latents of `n` samples (integer or integer array)."""
        return self.codec.frame_count(n) * self.codec.quantizer.stride

    @property
    def width(self) -> int:
        """Channels of a latent."""
        return self.codec.quantizer.width

    @property
    def layers(self) -> int:
        """There are none that could be chosen."""
        return 0

    @property
    def hop(self) -> int:
        """Samples from one latent to the next."""
        return self.codec.latent_hop


class CodecLatents(Codec):
    """Samples [B, N] to latents [B, T, width]; sub-modules are those of the codec."""

    def __call__(  # type: ignore[override]
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """`layer`: 0 is the only one. Raises `UserError` for another."""
        require(layer in (None, 0), "layer", layer, "a codec has its latents only, layer 0")
        latents = self.latents(samples, mask)
        values = latents.values
        return EncoderOutput(values, latents.mask, values, values[None] if collect else None)


def hearing(config: Any, rate_hz: int) -> Any:
    """The encoder that stands for a part: of a codec its latents; raises `UserError` for a codec of another rate."""
    if not isinstance(config, CodecConfig):
        return config
    require(config.rate_hz == rate_hz, "codec.rate_hz", config.rate_hz, f"clips are heard at {rate_hz} Hz")
    return CodecLatentsConfig(codec=config)
