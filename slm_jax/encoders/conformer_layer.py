"""One Conformer layer (Gulati et al. 2020) as w2v-BERT 2.0 has it: causal convolution, layer norms throughout."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.encoders.ssl_layer import bert_init
from slm_jax.nn.attention import Attention
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import MLP, activation
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.relative_key import RelativeKey, RelativeKeyConfig
from slm_jax.nn.visibility import Visibility


class ConformerLayer(nn.Module):
    """Half a feed-forward block, self-attention, a convolution, half a feed-forward block, a norm.

    `layer_drop`: chance that a whole layer is skipped in training, one draw per call.
    """

    heads: int
    hidden: int
    kernel: int
    position: RelativeKeyConfig
    activation: str
    dropout: float
    attention_dropout: float
    activation_dropout: float
    conv_dropout: float
    layer_drop: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: None, mask: Bool[Array, "B T"], *, deterministic: bool
    ) -> tuple[Float[Array, "B T D"], None]:
        y = x + 0.5 * self._fed_forward("mlp_in", x, deterministic)
        y = y + self._attended(self._norm("attention_norm", y), mask, deterministic)
        y = y + self._convolved(zero_padded(self._norm("conv_norm", y), mask), deterministic)
        y = y + 0.5 * self._fed_forward("mlp_out", y, deterministic)
        y = self._norm("final_norm", y)
        if self.layer_drop > 0 and not deterministic:
            y = jnp.where(jax.random.bernoulli(self.make_rng("dropout"), self.layer_drop), x, y)
        return y, None

    def _norm(self, name: str, x: jax.Array) -> jax.Array:
        return LayerNorm(dtype=self.dtype, name=name)(x)

    def _fed_forward(self, name: str, x: jax.Array, deterministic: bool) -> jax.Array:
        mlp = MLP(
            self.hidden,
            activation=self.activation,
            dropout=self.activation_dropout,
            kernel_init=bert_init,
            dtype=self.dtype,
            name=name,
        )
        y = mlp(self._norm(f"{name}_norm", x), deterministic=deterministic)
        return nn.Dropout(self.dropout, name=f"{name}_dropout")(y, deterministic=deterministic)

    def _attended(self, x: jax.Array, mask: jax.Array, deterministic: bool) -> jax.Array:
        attention = Attention(
            self.heads,
            x.shape[-1] // self.heads,
            dropout=self.attention_dropout,
            kernel_init=bert_init,
            dtype=self.dtype,
            name="attention",
        )
        sees = Visibility(mask.astype(jnp.int32), causal=False)
        by_distance = RelativeKey(self.position, dtype=self.dtype, name="relative_key")
        y, _ = attention(x, mask=sees, bias=by_distance, deterministic=deterministic)
        # the published class has one rate for the weights of attention and for what comes of it
        return nn.Dropout(self.attention_dropout, name="attention_out_dropout")(y, deterministic=deterministic)

    def _convolved(self, x: Float[Array, "B T D"], deterministic: bool) -> Float[Array, "B T D"]:
        """A gate, a filter of its own for each channel over the last `kernel` frames, and a map of all channels."""
        width, shared = x.shape[-1], {"use_bias": False, "kernel_init": bert_init, "dtype": self.dtype}
        x = Linear(2 * width, in_names=("embed",), out_names=("mlp",), name="conv_in", **shared)(x)
        x = x[..., :width] * jax.nn.sigmoid(x[..., width:])
        x = Conv1d(
            width,
            self.kernel,
            groups=width,
            padding="causal",
            use_bias=False,
            form="unfold",
            dtype=self.dtype,
            name="conv",
        )(x)
        x = activation(self.activation)(self._norm("filtered_norm", x))
        x = Linear(width, in_names=("mlp",), out_names=("embed",), name="conv_out", **shared)(x)
        return nn.Dropout(self.conv_dropout, name="conv_dropout")(x, deterministic=deterministic)
