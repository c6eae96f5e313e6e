"""One layer of a decoder, and its norms."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from slm_jax.core.types import Frames
from slm_jax.nn.attention import Attention
from slm_jax.nn.caches import ContextCache, CrossCache, KVCache, RingCache
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import MLP
from slm_jax.nn.norm import LayerNorm, RMSNorm
from slm_jax.nn.pacing import PacedCache, PartlySeen
from slm_jax.nn.positions import Rotation
from slm_jax.nn.visibility import Visibility
from slm_jax.sequence_models.decoder_shape import DecoderShape

LayerCache = KVCache | RingCache | CrossCache


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention where there is a context, a feed-forward block: each with residual and norm."""

    config: DecoderShape

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: LayerCache | None,
        mask: Visibility | None,
        by: Rotation | None,
        real: Bool[Array, "B T"] | None,
        context: Frames | PartlySeen | None = None,
        bias: Float[Array, "#B H T S"] | None = None,
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        drop = partial(nn.Dropout(self.config.dropout, name="dropout"), deterministic=deterministic)
        own, heard = (cache.own, cache.context) if isinstance(cache, CrossCache) else (cache, None)

        def attended(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
            nonlocal own
            attention = self._attention("attention")
            y, own = attention(x, mask=mask, bias=bias, by=by, cache=own, real=real, deterministic=deterministic)
            return drop(y)

        def listened(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
            nonlocal heard
            values, real_frames = (None, None) if context is None else (context.values, context.mask)
            cross = self._attention("cross_attention")
            counted = real if isinstance(heard, PacedCache) else None
            y, heard = cross(x, values, mask=real_frames, cache=heard, real=counted, deterministic=deterministic)
            return drop(y)

        x = self._residual("attention_norm", attended, x)
        if self.config.context_width is not None:
            x = self._residual("cross_norm", listened, x)
        x = self._residual("mlp_norm", lambda x: drop(self._mlp()(x, deterministic=deterministic)), x)
        return x, _together(own, heard)

    def _residual(self, norm: str, block: Callable[[Any], Any], x: Any) -> Any:
        """`x` with what `block` makes of it, the norm called `norm` before the block or after the sum."""
        normed = make_norm(self.config, norm)
        if self.config.norm_order == "pre":
            return x + block(normed(x))
        return normed(x + block(x))

    def _attention(self, name: str) -> Attention:
        config = self.config
        return Attention(
            heads=config.heads,
            head_width=config.channels,
            kv_heads=config.groups,
            qkv_bias=config.qkv_bias,
            key_bias=config.key_bias,
            out_bias=config.out_bias,
            qk_norm=config.norm_epsilon if config.qk_norm else None,
            scale=config.attention_scale,
            dropout=config.attention_dropout,
            kernel_init=nn.initializers.normal(config.init_scale),
            out_kernel_init=nn.initializers.normal(config.init_scale / math.sqrt(2 * config.layers)),
            dtype=compute_dtype(config.dtype),
            name=name,
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


def _together(own: KVCache | RingCache | None, heard: ContextCache | None) -> LayerCache | None:
    return own if own is None or heard is None else CrossCache(own, heard)


def make_norm(config: DecoderShape, name: str | None) -> nn.Module:
    """The norm that `config` asks for."""
    dtype = compute_dtype(config.dtype)
    if config.norm == "rms":
        return RMSNorm(config.norm_epsilon, dtype=dtype, name=name)
    return LayerNorm(config.norm_epsilon, use_bias=config.norm_bias, dtype=dtype, name=name)
