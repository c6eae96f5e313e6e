"""Whisper, a speech recogniser and translator (Radford et al. 2022): an encoder and a decoder that listens to it."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from slm_jax.audio.mel import whisper_log_mel
from slm_jax.core.config import Config
from slm_jax.core.errors import nearest, require
from slm_jax.core.types import Frames
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig

SIZES = {
    "tiny": (4, 4, 384, 6, 80, 51865),
    "base": (6, 6, 512, 8, 80, 51865),
    "small": (12, 12, 768, 12, 80, 51865),
    "medium": (24, 24, 1024, 16, 80, 51865),
    "large": (32, 32, 1280, 20, 80, 51865),
    "large-v2": (32, 32, 1280, 20, 80, 51865),
    "large-v3": (32, 32, 1280, 20, 128, 51866),
    "large-v3-turbo": (32, 4, 1280, 20, 128, 51866),
}
"""size -> layers of encoder and decoder, width, heads, mels, vocabulary (`openai/whisper-*`)."""
ENGLISH = ("tiny", "base", "small", "medium")
"""Sizes that also come as English-only models (`base.en`), with one token less."""
POSITIONS = 448


class WhisperConfig(Config):
    """An encoder and a decoder whose context it is."""

    encoder: WhisperEncoderConfig
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        heard = self.decoder.context_width
        require(heard == self.encoder.width, "decoder.context_width", heard, f"the encoder's {self.encoder.width}")

    def make(self) -> "Whisper":
        """The module."""
        return Whisper(self)


class Whisper(nn.Module):
    """Sub-modules `encoder` and `decoder`; decoding runs over the decoder with what `encode` gives as its context."""

    config: WhisperConfig

    def setup(self) -> None:
        self.encoder = self.config.encoder.make()
        self.decoder = self.config.decoder.make()

    def __call__(
        self,
        samples: Float[Array, "B N"],
        ids: Int[Array, "B S"],
        sample_mask: Bool[Array, "B N"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S V"]:
        """Float32 logits of the next token after each of `ids`."""
        context = self.encode(samples, sample_mask, deterministic=deterministic)
        return self.decoder(ids, mask=mask, context=context, deterministic=deterministic)

    def encode(
        self,
        samples: Float[Array, "B N"],
        sample_mask: Bool[Array, "B N"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Frames:
        """What the decoder listens to."""
        return self.encoder(samples, sample_mask, deterministic=deterministic).frames


def whisper(size: str = "base", **changes: Any) -> WhisperConfig:
    """A published size (`base`, `base.en` ...); `changes` of the decoder's fields."""
    sizes = (*SIZES, *(f"{name}.en" for name in ENGLISH))
    require(size in sizes, "Whisper size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    encoder_layers, layers, width, heads, mels, vocabulary = SIZES[size.removesuffix(".en")]
    encoder = WhisperEncoderConfig(
        mel=whisper_log_mel(mels), layers=encoder_layers, width=width, heads=heads, hidden=4 * width
    )
    decoder = whisper_decoder(vocabulary - size.endswith(".en"), layers, width, heads)
    return WhisperConfig(encoder=encoder, decoder=decoder.replace(**changes))


def whisper_decoder(vocabulary: int, layers: int, width: int, heads: int) -> DecoderConfig:
    """A decoder of Whisper's form: learned positions, pre-norm, keys without bias, tied head."""
    return DecoderConfig(
        vocabulary=vocabulary,
        layers=layers,
        width=width,
        heads=heads,
        hidden=4 * width,
        context_width=width,
        key_bias=False,
        max_positions=POSITIONS,
    )
