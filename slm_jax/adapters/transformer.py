"""A small Transformer encoder as adapter, the kind that SLM (arXiv 2310.00230) puts between two frozen models."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.adapters.linear import output_map
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.attention import Attention
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import MLP, activation
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.positions import positions_from_mask, sinusoidal
from slm_jax.nn.stack import Stack
from slm_jax.nn.visibility import Visibility


class TransformerAdapterConfig(Config):
    """Pre-norm layers in which every real frame sees every other, a last norm, and a map to `width`.

    `inner`: channels of the layers, reached by a linear map; None keeps those that come in. `sinusoids`: positions are
    added, else frames are told apart by what the encoder says alone. `unroll`, `remat`: see `nn.stack`. The paper gives
    the size of the whole, about 156M, and not its shape: two layers are an interpretation.
    """

    width: int
    inner: int | None = None
    layers: int = 2
    heads: int = 8
    hidden: int = 2048
    activation: str = "gelu"
    sinusoids: bool = False
    dropout: float = 0.1
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        divides = self.inner is None or self.inner % self.heads == 0
        require(divides, "heads", self.heads, f"must divide the {self.inner} channels of the layers")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "must be in [0, 1)")
        activation(self.activation)
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """As many frames as go in."""
        return frames

    def make(self) -> "TransformerAdapter":
        """The module."""
        return TransformerAdapter(self)


class TransformerAdapter(nn.Module):
    """Frames [B, T, D] to [B, T, width]; sub-modules `inner`, `stack`, `final_norm`, `map`."""

    config: TransformerAdapterConfig

    @nn.compact
    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames:
        """`context` is not looked at. Raises `UserError` where the heads do not divide the channels that come in."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = zero_padded(frames.values, frames.mask).astype(dtype)
        x = x if c.inner is None else Linear(c.inner, ("embed",), ("embed",), dtype=dtype, name="inner")(x)
        require(x.shape[-1] % c.heads == 0, "heads", c.heads, f"must divide the {x.shape[-1]} channels that come in")
        if c.sinusoids:
            x = x + sinusoidal(positions_from_mask(frames.mask), x.shape[-1]).astype(dtype)
        sees = Visibility(frames.mask.astype(jnp.int32), causal=False)
        stack = Stack(_layer_maker(c), c.layers, unroll=c.unroll, remat=c.remat, name="stack")
        x = stack(x, None, (sees,), deterministic=deterministic).values
        x = LayerNorm(dtype=dtype, name="final_norm")(x)
        return Frames(output_map(c.width, dtype, name="map")(x), frames.mask)


class TransformerLayer(nn.Module):
    """Attention over what `sees` shows and a feed-forward block, each behind its norm.

    `key_bias`: have keys a bias, as queries and values have (Whisper's do not)?
    """

    heads: int
    hidden: int
    activation: str
    dropout: float
    key_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: None, sees: Visibility, *, deterministic: bool
    ) -> tuple[Float[Array, "B T D"], None]:
        drop = partial(nn.Dropout, self.dropout, deterministic=deterministic)
        attention = Attention(
            self.heads,
            x.shape[-1] // self.heads,
            key_bias=self.key_bias,
            dropout=self.dropout,
            dtype=self.dtype,
            name="attention",
        )
        y = LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        x = x + drop(name="attention_dropout")(attention(y, mask=sees, deterministic=deterministic)[0])
        mlp = MLP(self.hidden, self.activation, dropout=self.dropout, dtype=self.dtype, name="mlp")
        y = mlp(LayerNorm(dtype=self.dtype, name="mlp_norm")(x), deterministic=deterministic)
        return x + drop(name="mlp_dropout")(y), None


def _layer_maker(config: TransformerAdapterConfig) -> Callable[..., TransformerLayer]:
    """A function of `name` that makes a layer. Not a method: Flax would make the method's module the parent."""
    return partial(
        TransformerLayer,
        heads=config.heads,
        hidden=config.hidden,
        activation=config.activation,
        dropout=config.dropout,
        dtype=compute_dtype(config.dtype),
    )
