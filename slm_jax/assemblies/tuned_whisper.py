"""Whisper while it is trained: p(text | speech) with attention, and with CTC from the frames of its encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.assemblies.whisper import WhisperConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear


class TunedWhisperConfig(Config):
    """`classes` of CTC, one of them the blank; None: attention alone."""

    whisper: WhisperConfig
    classes: int | None = None

    def __post_init__(self) -> None:
        require(self.classes is None or self.classes >= 2, "classes", self.classes, "a label and the blank, or None")

    def make(self) -> "TunedWhisper":
        """The module."""
        return TunedWhisper(self)


class TunedWhisper(nn.Module):
    """Sub-modules `whisper` (parameters are those of `config.whisper.make()`) and, with classes, `ctc`.

    ESPnet trains Whisper so (hybrid CTC/attention, Watanabe et al. 2017): the linear head of CTC reads what the decoder
    listens to.
    """

    config: TunedWhisperConfig

    def setup(self) -> None:
        self.whisper = self.config.whisper.make()
        if self.config.classes is not None:
            dtype = compute_dtype(self.config.whisper.encoder.dtype)
            self.ctc = Linear(self.config.classes, ("embed",), ("vocab",), dtype=dtype)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        sample_mask: Bool[Array, "B N"],
        ids: Int[Array, "B S"],
        mask: Bool[Array, "B S"],
        *,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B S D"], Float[Array, "B T V"] | None, Bool[Array, "B T"]]:
        """What the head reads after each of `ids`, float32 logits of CTC if there are any, which frames are real."""
        heard = self.whisper.encode(samples, sample_mask, deterministic=deterministic)
        features = self.whisper.decoder.hidden(ids, mask=mask, context=heard, deterministic=deterministic)
        return features, self.ctc_logits(heard), heard.mask

    def ctc_logits(self, heard: Frames) -> Float[Array, "B T V"] | None:
        """Scores of the labels in every frame."""
        return None if self.config.classes is None else self.ctc(heard.values).astype(jnp.float32)

    def head(self, features: Float[Array, "B S D"]) -> Float[Array, "B S V"]:
        """Float32 logits of the next token."""
        return self.whisper.decoder.head(features)

    def head_matrix(self) -> Float[Array, "D V"]:
        """What `head` multiplies by."""
        return self.whisper.decoder.head_matrix()
