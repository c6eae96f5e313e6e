"""One layer of a decoder, and its norms."""

import math
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from slm_jax.nn.attention import Attention
from slm_jax.nn.caches import KVCache, RingCache
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import MLP
from slm_jax.nn.norm import LayerNorm, RMSNorm
from slm_jax.nn.positions import Rotation
from slm_jax.nn.visibility import Visibility
from slm_jax.sequence_models.decoder_shape import DecoderShape


class DecoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each with its residual and its norm."""

    config: DecoderShape

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: KVCache | RingCache | None,
        mask: Visibility | None,
        by: Rotation | None,
        real: Bool[Array, "B T"] | None,
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], KVCache | RingCache | None]:
        config = self.config
        pre = config.norm_order == "pre"
        norms = make_norm(config, "attention_norm"), make_norm(config, "mlp_norm")
        drop = partial(nn.Dropout(config.dropout, name="dropout"), deterministic=deterministic)
        attention, mlp = self._attention(), self._mlp()
        y, cache = attention(
            norms[0](x) if pre else x, mask=mask, by=by, cache=cache, real=real, deterministic=deterministic
        )
        x = x + drop(y)
        x = x if pre else norms[0](x)
        x = x + drop(mlp(norms[1](x) if pre else x, deterministic=deterministic))
        return (x if pre else norms[1](x)), cache

    def _attention(self) -> Attention:
        config = self.config
        return Attention(
            heads=config.heads,
            head_width=config.channels,
            kv_heads=config.groups,
            qkv_bias=config.qkv_bias,
            out_bias=config.out_bias,
            qk_norm=config.norm_epsilon if config.qk_norm else None,
            dropout=config.attention_dropout,
            kernel_init=nn.initializers.normal(config.init_scale),
            out_kernel_init=nn.initializers.normal(config.init_scale / math.sqrt(2 * config.layers)),
            dtype=compute_dtype(config.dtype),
            name="attention",
        )

    def _mlp(self) -> MLP:
        config = self.config
        return MLP(
            config.hidden,
            activation=config.activation,
            gated=config.gated,
            use_bias=config.mlp_bias,
            dropout=config.activation_dropout,
            kernel_init=nn.initializers.normal(config.init_scale),
            dtype=compute_dtype(config.dtype),
            name="mlp",
        )


def make_norm(config: DecoderShape, name: str | None) -> nn.Module:
    """The norm that `config` asks for."""
    kind = {"layer": LayerNorm, "rms": RMSNorm}[config.norm]
    return kind(config.norm_epsilon, dtype=compute_dtype(config.dtype), name=name)
