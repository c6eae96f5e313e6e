"""The config of a decoder: its shape, and how it is made."""

from slm_jax.sequence_models.decoder import Decoder
from slm_jax.sequence_models.decoder_shape import DecoderShape


class DecoderConfig(DecoderShape):
    """A `DecoderShape` that makes its decoder; the layers know the shape only, so that no file imports itself."""

    def make(self) -> Decoder:
        """The decoder of this shape."""
        return Decoder(self)
