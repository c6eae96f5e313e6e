"""What a vocoder needs and a sequence of units does not say: durations, F0 and voicing."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.dtypes import at_least_float32, compute_dtype
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

    @property
    def reach(self) -> int:
        """Steps on either side that can reach one output."""
        return sum(dilation * (self.kernel // 2) for dilation in self.dilations)

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
        return out.astype(at_least_float32(out.dtype))


WINDOW = 64
"""Steps that `in_windows` predicts at once."""


def in_windows(predictor: Predictor, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T O"]:
    """What the bound `predictor` says of `x` without dropout, to the last bit the same in any batch and padding.

    A matrix product sums in an order that depends on its shape. Here every product has one shape: a window of one row
    with the steps that reach into it, one window after the other. Speech integrates predicted F0 into a phase whose
    hundredfold is heard in the high harmonics, and rounds predicted durations, so that the last bit matters.
    """
    (rows, steps, _), reach = x.shape, predictor.config.reach
    count = max(-(-steps // WINDOW), 1 if rows > 1 else 2)  # XLA takes a loop of one turn apart and compiles it anew
    places = jnp.arange(count)[:, None] * WINDOW + jnp.arange(WINDOW + 2 * reach)
    edges = (reach, count * WINDOW - steps + reach)
    x = jnp.pad(x, ((0, 0), edges, (0, 0)))[:, places]
    mask = jnp.pad(mask, ((0, 0), edges))[:, places]
    module, variables = predictor.unbind()
    windows = (x.reshape(-1, 1, *x.shape[2:]), mask.reshape(-1, 1, mask.shape[2]))
    out = jax.lax.map(lambda window: module.apply(variables, *window), windows)
    return out[:, 0, reach : reach + WINDOW].reshape(rows, count * WINDOW, -1)[:, :steps]
