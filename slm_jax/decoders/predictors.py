"""What a vocoder needs and a sequence of units does not say: durations, F0 and voicing."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import LayerNorm


class PredictorConfig(Config):
    """`layers` times convolution, ReLU, LayerNorm, dropout; then `outputs` numbers per step.

    `width` None keeps the width of the input, as the duration predictor of FastSpeech 2 and of unit HiFi-GANs does.
    `dilations` has one entry per layer.
    """

    outputs: int = 1
    width: int | None = None
    kernel: int = 3
    dilations: tuple[int, ...] = (1, 1)
    dropout: float = 0.5
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.outputs > 0, "outputs", self.outputs, "must be positive")
        require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "at least 0 and below 1")
        require(len(self.dilations) > 0, "dilations", self.dilations, "one per layer, at least one")

    def make(self, name: str | None = None) -> "Predictor":
        """The module."""
        return Predictor(self, name=name)


def pitch_predictor(width: int = 128, dtype: str = "float32") -> PredictorConfig:
    """Log F0 and voicing of every frame from about half a second around it."""
    return PredictorConfig(outputs=2, width=width, kernel=5, dilations=(1, 2, 3), dropout=0.1, dtype=dtype)


class Predictor(nn.Module):
    """A small convolutional regression over time (Ren et al. 2021, FastSpeech 2)."""

    config: PredictorConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None, deterministic: bool = True
    ) -> Float[Array, "B T O"]:
        c = self.config
        settings: dict[str, Any] = {"dtype": compute_dtype(c.dtype)}
        width = c.width or x.shape[-1]
        for layer, dilation in enumerate(c.dilations):
            x = Conv1d(width, c.kernel, dilation=dilation, name=f"conv_{layer}", **settings)(x, mask)
            x = LayerNorm(name=f"norm_{layer}", **settings)(nn.relu(x))
            x = nn.Dropout(c.dropout, name=f"dropout_{layer}")(x, deterministic=deterministic)
        out = Linear(c.outputs, ("conv_in",), (None,), name="out", **settings)(x)
        return out.astype(jnp.float32)
