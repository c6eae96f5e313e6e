"""An encoder and a decoder that listens to it, over one token table (T5, Raffel et al. 2020)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.sequence_models.decoder_config import DecoderConfig

START = 0
"""What a decoder reads before anything is written: T5's padding id."""


class EncoderDecoderConfig(Config):
    """`encoder` reads whole rows (`causal` False), `decoder` has what it gives as its context.

    The token table is the decoder's, `decoder/tokens/embedding`; the encoder has none, and no head (`tied_head`).
    """

    encoder: DecoderConfig
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        require(not encoder.causal, "encoder.causal", encoder.causal, "an encoder sees later entries too")
        require(encoder.tied_head, "encoder.tied_head", encoder.tied_head, "an encoder has no head")
        heard = decoder.context_width
        require(heard == encoder.table_width, "decoder.context_width", heard, f"the encoder's {encoder.table_width}")
        for name in ("vocabulary", "table_width", "width", "embed_scale"):
            ours, theirs = getattr(encoder, name), getattr(decoder, name)
            require(ours == theirs, f"encoder.{name}", ours, f"one table serves both: the decoder's {theirs}")
        require(encoder.table_width == encoder.width, "encoder.embed_width", encoder.embed_width, "must be its width")

    @property
    def vocabulary(self) -> int:
        """Ids that are read and written."""
        return self.decoder.vocabulary

    @property
    def tied_head(self) -> bool:
        """Whether the head is the table of embeddings."""
        return self.decoder.tied_head

    @property
    def width(self) -> int:
        """Channels of the vectors that may stand for ids."""
        return self.encoder.width

    def make(self) -> "EncoderDecoder":
        """The module."""
        return EncoderDecoder(self)


class EncoderDecoder(nn.Module):
    """Sub-modules `encoder` and `decoder`. Decoding runs over `config.decoder.make()` with what `encode` gives.

    Written ids begin with one that is not written, `START`.
    """

    config: EncoderDecoderConfig

    def setup(self) -> None:
        self.encoder = self.config.encoder.make()
        self.decoder = self.config.decoder.make()

    def __call__(
        self,
        entries: Int[Array, "B L"] | Float[Array, "B L D"],
        decoder_ids: Int[Array, "B S"],
        mask: Bool[Array, "B L"] | None = None,
        decoder_mask: Bool[Array, "B S"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S V"]:
        """Float32 logits of the next token after each of `decoder_ids`; padding may stand on either side."""
        return self.head(self.hidden(entries, decoder_ids, mask, decoder_mask, deterministic=deterministic))

    def hidden(
        self,
        entries: Int[Array, "B L"] | Float[Array, "B L D"],
        decoder_ids: Int[Array, "B S"],
        mask: Bool[Array, "B L"] | None = None,
        decoder_mask: Bool[Array, "B S"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S D"]:
        """What the head reads."""
        context = self.encode(entries, mask, deterministic=deterministic)
        return self.decoder.hidden(decoder_ids, mask=decoder_mask, context=context, deterministic=deterministic)

    def encode(
        self,
        entries: Int[Array, "B L"] | Float[Array, "B L D"],
        mask: Bool[Array, "B L"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Frames:
        """What the decoder listens to, from ids or from vectors in their place, such as speech behind an adapter."""
        x = self.embed(entries) if jnp.issubdtype(entries.dtype, jnp.integer) else entries
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        x = jnp.where(mask[..., None], x, 0.0)  # a weight of nought would keep a NaN of the padding
        return Frames(self.encoder.run(x, mask=mask, deterministic=deterministic), mask)

    def embed(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Token vectors, for rows of ids and speech."""
        return self.decoder.embed(ids)

    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Float32 logits from what `hidden` returns."""
        return self.decoder.head(features)

    def head_matrix(self) -> Float[Array, "D V"]:
        """The matrix of `head`, for losses that never hold all logits at once."""
        return self.decoder.head_matrix()
