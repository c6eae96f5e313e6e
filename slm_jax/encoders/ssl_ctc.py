"""An encoder with the head of CTC: from frames to labels and the blank (Baevski et al. 2020, section 3.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear


class CTCEncoderConfig(Config):
    """An encoder with a head over `classes`, one of them the blank. Reference: `HubertForCTC` of transformers."""

    encoder: SSLEncoderConfig | WhisperEncoderConfig
    classes: int

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "at least one label and the blank")

    def make(self) -> "CTCEncoder":
        """The module."""
        return CTCEncoder(self)

    @property
    def head(self) -> "CTCHeadConfig":
        """The head alone."""
        return CTCHeadConfig(width=self.encoder.width, classes=self.classes)


class CTCHeadConfig(Config):
    """The head of a `CTCEncoder` alone, a part of models such as `adapters.ctc`: from `width` channels to labels."""

    width: int
    classes: int

    def make(self) -> Linear:
        """The module."""
        return Linear(self.classes, ("embed",), ("vocab",))


class CTCEncoder(nn.Module):
    """Encoder (parameters under `encoder`, which are those of `config.encoder.make()`) and `head`."""

    config: CTCEncoderConfig

    def setup(self) -> None:
        dtype = compute_dtype(self.config.encoder.dtype)
        self.encoder = self.config.encoder.make()
        self.head = Linear(self.config.classes, ("embed",), ("vocab",), dtype=dtype)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T V"], Bool[Array, "B T"]]:
        """Float32 logits of every frame, and the mask of the frames."""
        out = self.encoder(samples, mask, deterministic=deterministic)
        return self.head(out.values).astype(jnp.float32), out.mask
