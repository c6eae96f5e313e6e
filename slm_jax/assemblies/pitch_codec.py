"""Pitch as codes: tracks of F0 and voicing through a codebook and back (Polyak et al. 2021; SpiRit-LM's pitch tokens).

Source: Nguyen et al. 2024 (SpiRit-LM), section 3.1: 64 codes at 12.5 Hz of F0 at 200 Hz.
"""

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float, Int

from slm_jax.assemblies.codec import entries_only, merged
from slm_jax.audio.pitch_features import PitchFeaturesConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Frames
from slm_jax.decoders.track import TrackDecoderConfig
from slm_jax.encoders.track import TrackEncoderConfig
from slm_jax.quantizers.codebooks import COLLECTION, CodebookConfig
from slm_jax.quantizers.residual import Quantized, ResidualVQConfig

BOOK = ResidualVQConfig(books=1, codebook=CodebookConfig(size=64))
"""64 codes that averages move."""


class PitchCodecConfig(Config):
    """`features` of F0 through `encoder`, `quantizer` (one book) and `decoder`.

    The decoder's first channel is F0 as `features` say, the second says voicing: above `voiced_above` is voiced (0: it
    is trained as a logit; .5: it repeats the 0 and 1 that came in, as the released one).
    """

    features: PitchFeaturesConfig = PitchFeaturesConfig()
    encoder: TrackEncoderConfig = TrackEncoderConfig()
    decoder: TrackDecoderConfig = TrackDecoderConfig()
    quantizer: ResidualVQConfig = BOOK
    voiced_above: float = 0.0

    def __post_init__(self) -> None:
        same = self.encoder.hop == self.decoder.hop
        require(same, "hop of the decoder", self.decoder.hop, f"the encoder's is {self.encoder.hop}")
        widths = {part: getattr(self, part).width for part in ("encoder", "quantizer", "decoder")}
        require(len(set(widths.values())) == 1, "widths", widths, "all parts share the latent")
        channels = (self.encoder.channels, self.decoder.channels)
        require(channels == (2, 2), "channels of encoder and decoder", channels, "two: F0 and voicing")
        plain = self.quantizer.books == 1 and not self.quantizer.strides
        require(plain, "quantizer", self.quantizer.books, "one book, an id for every latent")

    @property
    def codes(self) -> int:
        """How many there are."""
        return self.quantizer.codebook.size

    @property
    def hop(self) -> int:
        """Values of F0 per code."""
        return self.encoder.hop

    def make(self) -> "PitchCodec":
        """The module."""
        return PitchCodec(self)


class PitchCoded(NamedTuple):
    """What training sees: the tracks that were made, the latents, and what the quantizer made of them."""

    tracks: Frames
    latents: Frames
    quantized: Quantized


class PitchCodec(nn.Module):
    """Tracks `[B, P, 2]` to codes `[B, P // hop, 1]` and back to `[B, T hop, 2]`."""

    config: PitchCodecConfig

    def setup(self) -> None:
        c = self.config
        self.encoder, self.quantizer, self.decoder = c.encoder.make(), c.quantizer.make(), c.decoder.make()

    def __call__(self, tracks: Frames, rows: Int[Array, "B"] | None = None) -> PitchCoded:
        """The way there and back; `rows` tells the rows of a batch apart, for the lottery that revives codes."""
        latents = self.encoder(tracks)
        quantized = self.quantizer(latents, rows=rows)
        return PitchCoded(self.decoder(Frames(quantized.values, latents.mask)), latents, quantized)

    def encode(self, tracks: Frames) -> Codes:
        """Codes of tracks."""
        return self.quantizer.encode(self.encoder(tracks))

    def decode(self, codes: Codes) -> Frames:
        """The tracks that codes stand for, as the decoder says them."""
        return self.decoder(self.quantizer.decode(codes))

    def latents(self, tracks: Frames) -> Frames:
        """What the quantizer is given."""
        return self.encoder(tracks)


def voicing_of(config: PitchCodecConfig, tracks: Float[Any, "*S 2"]) -> Any:
    """Which values of what the decoder says are voiced."""
    return tracks[..., 1] > config.voiced_above


def settled_pitch(config: PitchCodecConfig, variables: Any) -> tuple[PitchCodecConfig, dict[str, Any]]:
    """A trained codec as config and parameters alone: codes that averages moved are parameters now."""
    if not config.quantizer.counted:
        return config, variables["params"]
    params = merged(variables["params"], {"quantizer": entries_only(variables[COLLECTION]["quantizer"])})
    return config.replace(quantizer=config.quantizer.learnt_by_gradient()), params
