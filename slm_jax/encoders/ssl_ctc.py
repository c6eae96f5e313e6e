"""An encoder with the head of CTC: from frames to labels and the blank (Baevski et al. 2020, section 3.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.fastconformer import FastConformerConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.nn.ctc_head import CTCHeadConfig


class CTCEncoderConfig(Config):
    """An encoder with a head over `classes`, one of them the blank. Reference: `HubertForCTC` of transformers.

    `head_hidden`: channels of the convolution in front of the head's linear map; 0, as in the reference, has none.
    """

    encoder: SSLEncoderConfig | WhisperEncoderConfig | FastConformerConfig
    classes: int
    head_hidden: int = 0

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "at least one label and the blank")
        require(self.head_hidden >= 0, "head_hidden", self.head_hidden, "channels of the head's convolution, or 0")

    def make(self) -> "CTCEncoder":
        """The module."""
        return CTCEncoder(self)

    @property
    def head(self) -> CTCHeadConfig:
        """The head alone."""
        return CTCHeadConfig(width=self.encoder.width, classes=self.classes, hidden=self.head_hidden)


class CTCEncoder(nn.Module):
    """Encoder (parameters under `encoder`, which are those of `config.encoder.make()`) and `head`."""

    config: CTCEncoderConfig

    def setup(self) -> None:
        self.encoder = self.config.encoder.make()
        self.head = self.config.head.make(self.config.encoder.dtype)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T V"], Bool[Array, "B T"]]:
        """Float32 logits of every frame, and the mask of the frames."""
        out = self.encoder(samples, mask, deterministic=deterministic)
        return self.head(out.values, out.mask).astype(jnp.float32), out.mask
