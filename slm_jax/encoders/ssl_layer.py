"""One Transformer layer of the wav2vec 2.0 / HuBERT / WavLM family and of BEATs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.encoders.bias_gate import BiasGate
from slm_jax.nn.attention import Attention
from slm_jax.nn.mlp import MLP
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.visibility import Visibility

bert_init = nn.initializers.normal(0.02)


class SSLLayer(nn.Module):
    """Self-attention over all real frames and a GELU feed-forward block, normalised after (base) or before (large).

    Without a `mask` all frames are real. `gated_by`: what the gate on a relative bias reads, the "input" of the layer
    (WavLM) or its "queries" (BEATs). `layer_drop`: chance that a whole layer is skipped in training (Fan et al. 2020),
    one draw per call. `residual_scale`: factor on what by-passes each half of the layer (DeepNorm's alpha, Wang et al.
    2022).
    """

    heads: int
    hidden: int
    pre_norm: bool
    gated_by: str | None
    dropout: float
    attention_dropout: float
    activation_dropout: float
    layer_drop: float
    key_bias: bool = True
    residual_scale: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: None,
        mask: Bool[Array, "B T"] | None,
        bias: Float[Array, "H T T"] | None,
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], None]:
        attention_norm = LayerNorm(dtype=self.dtype, name="attention_norm")
        mlp_norm = LayerNorm(dtype=self.dtype, name="mlp_norm")
        if self.pre_norm:
            y = self.residual_scale * x + self._attended(attention_norm(x), mask, bias, deterministic)
            y = self.residual_scale * y + self._fed_forward(mlp_norm(y), deterministic)
        else:
            y = attention_norm(self.residual_scale * x + self._attended(x, mask, bias, deterministic))
            y = mlp_norm(self.residual_scale * y + self._fed_forward(y, deterministic))
        if self.layer_drop > 0 and not deterministic:
            y = jnp.where(jax.random.bernoulli(self.make_rng("dropout"), self.layer_drop), x, y)
        return y, None

    def _attended(self, x: jax.Array, mask: jax.Array | None, bias: jax.Array | None, deterministic: bool) -> jax.Array:
        given: Any = bias
        if self.gated_by is not None:
            gate = BiasGate(self.heads, dtype=self.dtype, name="gate")
            by_queries = self.gated_by == "queries"
            given = (lambda q: gate(q.reshape(*q.shape[:2], -1), bias)) if by_queries else gate(x, bias)
        attention = Attention(
            self.heads,
            x.shape[-1] // self.heads,
            key_bias=self.key_bias,
            dropout=self.attention_dropout,
            kernel_init=bert_init,
            dtype=self.dtype,
            name="attention",
        )
        sees = Visibility(None if mask is None else mask.astype(jnp.int32), causal=False)
        y, _ = attention(x, mask=sees, bias=given, deterministic=deterministic)
        return nn.Dropout(self.dropout, name="attention_out_dropout")(y, deterministic=deterministic)

    def _fed_forward(self, x: jax.Array, deterministic: bool) -> jax.Array:
        mlp = MLP(self.hidden, dropout=self.activation_dropout, kernel_init=bert_init, dtype=self.dtype, name="mlp")
        y = mlp(x, deterministic=deterministic)
        return nn.Dropout(self.dropout, name="mlp_out_dropout")(y, deterministic=deterministic)
