"""A causal Transformer over frames with a limited view, whole and step by step: what stands in codecs such as Mimi.

Pre-norm layers with rotations, both residuals scaled channel by channel (Touvron et al. 2021), no norm at the end.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.attention import Attention
from slm_jax.nn.caches import RingCache, empty_ring
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import MLP
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.positions import Rotation, positions_from_mask, rotation
from slm_jax.nn.stack import Stack
from slm_jax.nn.visibility import Visibility, visible


class FrameTransformerConfig(Config):
    """`layers` over `width` channels; a frame sees the last `window`, itself counted. `scale`: of new residuals."""

    width: int = 512
    layers: int = 8
    heads: int = 8
    hidden: int = 2048
    window: int = 250
    scale: float = 0.01
    rope_base: float = 10_000.0
    epsilon: float = 1e-5
    dropout: float = 0.0
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden", "window"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the {self.width} channels")
        compute_dtype(self.dtype)

    def make(self, name: str | None = None) -> "FrameTransformer":
        """The module."""
        return FrameTransformer(self, name=name)


class FrameTransformer(nn.Module):
    """Frames to as many frames of the same width."""

    config: FrameTransformerConfig

    stride = 1
    latency = 0

    @property
    def receptive_field(self) -> int:
        """Frames that can reach one."""
        return (self.config.window - 1) * self.config.layers + 1

    def setup(self) -> None:
        c = self.config
        self.blocks = Stack(partial(FrameLayer, c), c.layers, unroll=c.unroll, remat=c.remat)

    def __call__(self, frames: Frames, *, deterministic: bool = True) -> Frames:
        sees = visible(frames.mask, None, self.config.window, True)
        by = self._rotation(positions_from_mask(frames.mask))
        x = self._entered(frames)
        values = self.blocks(x, None, (sees, by, None), deterministic=deterministic).values
        return Frames(zero_padded(values, frames.mask), frames.mask)

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> tuple[RingCache, ...]:
        """Empty rings of the window's size. `capacity` is not needed: a stream may be of any length."""
        c = self.config
        dtype = compute_dtype(c.dtype) if dtype is None else dtype
        return tuple(empty_ring(batch, c.window, c.heads, c.width // c.heads, dtype) for _ in range(c.layers))

    def step(self, frames: Frames, state: tuple[RingCache, ...]) -> tuple[Frames, tuple[RingCache, ...]]:
        """The next frames; what is not real leaves no trace."""
        by = self._rotation(state[0].positions(frames.mask))
        out = self.blocks(self._entered(frames), state, (None, by, frames.mask), deterministic=True)
        assert out.caches is not None  # for the type checker: caches went in
        return Frames(zero_padded(out.values, frames.mask), frames.mask), out.caches

    def reset(self, state: tuple[RingCache, ...], rows: Bool[Array, "B"]) -> tuple[RingCache, ...]:
        """The state with `rows` emptied."""
        return tuple(cache.reset(rows) for cache in state)

    def _entered(self, frames: Frames) -> Float[Array, "B T D"]:
        return zero_padded(frames.values, frames.mask).astype(compute_dtype(self.config.dtype))

    def _rotation(self, positions: Any) -> Rotation:
        c = self.config
        return rotation(positions, c.width // c.heads, c.rope_base)


class FrameLayer(nn.Module):
    """Attention and a feed-forward block, each behind its norm and scaled."""

    config: FrameTransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: RingCache | None,
        mask: Visibility | None,
        by: Rotation,
        real: Bool[Array, "B T"] | None,
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], RingCache | None]:
        c, dtype = self.config, compute_dtype(self.config.dtype)
        drop = partial(nn.Dropout(c.dropout), deterministic=deterministic)
        attention = Attention(
            c.heads, c.width // c.heads, qkv_bias=False, out_bias=False, dtype=dtype, name="attention"
        )
        y = LayerNorm(c.epsilon, dtype=dtype, name="attention_norm")(x)
        y, cache = attention(y, mask=mask, by=by, cache=cache, real=real, deterministic=deterministic)
        x = x + drop(y) * self._scale("attention_scale")
        mlp = MLP(c.hidden, use_bias=False, dtype=dtype, name="mlp")
        y = mlp(LayerNorm(c.epsilon, dtype=dtype, name="mlp_norm")(x), deterministic=deterministic)
        return x + drop(y) * self._scale("mlp_scale"), cache

    def _scale(self, name: str) -> Float[Array, "D"]:
        init = nn.with_logical_partitioning(nn.initializers.constant(self.config.scale), ("norm",))
        scale = self.param(name, init, (self.config.width,), jnp.float32)
        return scale.astype(compute_dtype(self.config.dtype))
