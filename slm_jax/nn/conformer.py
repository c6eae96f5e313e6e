"""Conformer layers (Gulati et al. 2020) as NeMo and transformers have them, whole and chunk by chunk.

Half a feed-forward block, self-attention with distances, a convolution, half a feed-forward block, a norm. With `chunk`
a frame sees its own chunk and `left` chunks before it (Noroozi et al. 2023, arXiv 2312.17279), and the convolution
looks back only: what a chunk gives is there as soon as it is heard.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames, pytree_dataclass
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import MLP, activation
from slm_jax.nn.norm import FoldedBatchNorm, LayerNorm
from slm_jax.nn.relative_attention import RelativeAttention, distances
from slm_jax.nn.stack import Stack, StackOutput
from slm_jax.nn.streaming_conv import rows_from
from slm_jax.nn.visibility import Visibility

NORMS = ("batch", "layer")


class ConformerShape(Config):
    """`layers` of `width` channels; `kernel` frames of the convolution, odd.

    `norm` in the convolution: "batch", whose statistics are settled (see `nn.norm.FoldedBatchNorm`), or "layer". `bias`
    of dense maps, `conv_bias` of convolutions. `chunk`: frames that are heard at once, None: all of a row, and the
    convolution looks to both sides; `left`: chunks before the own one that are seen. `layer_drop`: chance that a layer
    is skipped in training, one draw per call.
    """

    layers: int
    width: int
    heads: int
    hidden: int
    kernel: int = 9
    norm: str = "batch"
    bias: bool = True
    conv_bias: bool = True
    activation: str = "silu"
    chunk: int | None = None
    left: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    layer_drop: float = 0.0
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("layers", "width", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the width {self.width}")
        require(self.kernel >= 1 and self.kernel % 2 == 1, "kernel", self.kernel, "must be odd and at least 1")
        require(self.norm in NORMS, "norm", self.norm, f"must be one of {', '.join(NORMS)}")
        require(self.chunk is None or self.chunk >= 1, "chunk", self.chunk, "frames, at least 1")
        seen = self.left >= 0 and (self.left == 0 or self.chunk is not None)
        require(seen, "left", self.left, "chunks before a chunk, at least 0")
        for name in ("dropout", "attention_dropout", "activation_dropout", "layer_drop"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        activation(self.activation)
        compute_dtype(self.dtype)

    def make(self, name: str | None = None) -> "ConformerLayers":
        """The module."""
        return ConformerLayers(self, name=name)


@pytree_dataclass
class LayerState:
    """What a layer keeps of a row: keys and values of the last frames, the latest at the end; what its convolution read
    last."""

    keys: Float[Array, "B K H C"]
    values: Float[Array, "B K H C"]
    convolved: Float[Array, "B L D"]


@pytree_dataclass
class ConformerState:
    """The state of all layers, and how many frames of each row they keep."""

    layers: tuple[LayerState, ...]
    kept: Int[Array, "B"]


class ConformerLayers(nn.Module):
    """Frames to as many frames of the same width; sub-module `stack`."""

    config: ConformerShape

    stride = 1

    @property
    def latency(self) -> int:
        """Frames awaited beyond the first one of a chunk."""
        return (self.config.chunk or 1) - 1

    receptive_field = None

    def setup(self) -> None:
        c = self.config
        self.stack = Stack(partial(ConformerLayer, c), c.layers, c.unroll, c.remat)

    def __call__(self, frames: Frames, *, deterministic: bool = True) -> Frames:
        return Frames(self.run(frames, deterministic=deterministic).values, frames.mask)

    def run(
        self, frames: Frames, *, layer: int | None = None, collect: bool = False, deterministic: bool = True
    ) -> StackOutput:
        """Whole rows; `layer` k stops after layer k, `collect` keeps what every layer gives."""
        c, length = self.config, frames.mask.shape[1]
        window = None if c.chunk is None else c.left + 1
        causal = c.chunk is not None
        sees = Visibility(frames.mask.astype(jnp.int32), causal, window, block=c.chunk).dense(length)
        places = distances(length, length, c.width)
        shared = (places, sees, frames.mask, None)
        x = zero_padded(frames.values, frames.mask).astype(compute_dtype(c.dtype))
        return self.stack(x, None, shared, collect=collect, depth=layer, deterministic=deterministic)

    @nn.nowrap
    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> ConformerState:
        """Rows of which nothing is heard. `capacity` is not needed: a stream may be of any length."""
        c = self.config
        require(c.chunk is not None, "chunk", c.chunk, "what sees whole rows does not stream")
        assert c.chunk is not None  # for the type checker
        dtype = compute_dtype(c.dtype) if dtype is None else dtype
        kept = jnp.zeros((batch, c.left * c.chunk, c.heads, c.width // c.heads), dtype)
        state = LayerState(kept, kept, jnp.zeros((batch, c.kernel - 1, c.width), dtype))
        return ConformerState((state,) * c.layers, jnp.zeros((batch,), jnp.int32))

    def step(self, frames: Frames, state: ConformerState) -> tuple[Frames, ConformerState]:
        """The next chunks. A row gives all of their frames, none, or ends there.

        Raises `UserError` for frames that are no whole chunks.
        """
        c, length = self.config, frames.mask.shape[1]
        assert c.chunk is not None  # for the type checker: there is a state
        require(length % c.chunk == 0, "frames of a step", length, f"must be whole chunks of {c.chunk}")
        behind, count = c.left * c.chunk, frames.mask.sum(-1, dtype=jnp.int32)
        shared = distances(length, behind + length, c.width), self._sees(frames.mask, state.kept), frames.mask, count
        x = zero_padded(frames.values, frames.mask).astype(compute_dtype(c.dtype))
        out = self.stack(x, state.layers, shared, deterministic=True)
        assert out.caches is not None  # for the type checker: states went in
        after = ConformerState(out.caches, jnp.minimum(state.kept + count, behind))
        return Frames(zero_padded(out.values, frames.mask), frames.mask), after

    def reset(self, state: ConformerState, rows: Bool[Array, "B"]) -> ConformerState:
        """The state with `rows` as new."""
        blank = jax.tree.map(lambda leaf: jnp.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), 0, leaf), state)
        return ConformerState(blank.layers, blank.kept)

    def _sees(self, mask: Bool[Array, "B T"], kept: Int[Array, "B"]) -> Bool[Array, "B T S"]:
        """Which of the kept frames and of the new ones each new one sees."""
        c = self.config
        assert c.chunk is not None  # for the type checker: there is a state
        behind = c.left * c.chunk
        places = jnp.arange(-behind, mask.shape[1])
        real = jnp.concatenate([places[:behind] >= -kept[:, None], mask], axis=1)
        chunks = places // c.chunk
        mine = chunks[behind:, None]
        return real[:, None] & (chunks <= mine) & (chunks >= mine - c.left)


class ConformerLayer(nn.Module):
    """One layer; `places`, `sees`: of `RelativeAttention`. `count`: real frames of each row in a step."""

    config: ConformerShape

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: LayerState | None,
        places: Float[Array, "R D"],
        sees: Bool[Array, "_ T S"] | None,
        mask: Bool[Array, "B T"],
        count: Int[Array, "B"] | None,
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], LayerState | None]:
        c = self.config
        y = x + 0.5 * self._fed_forward("mlp_in", x, deterministic)
        attention = RelativeAttention(
            c.heads, c.width // c.heads, c.bias, c.attention_dropout, compute_dtype(c.dtype), name="attention"
        )
        kept = None if state is None else (state.keys, state.values)
        attended, new = attention(self._norm("attention_norm", y), places, sees, kept, deterministic=deterministic)
        y = y + self._drop(attended, deterministic)
        before = None if state is None else state.convolved
        convolved, joined = self._convolved(self._norm("conv_norm", y), mask, before)
        y = y + self._drop(convolved, deterministic)
        y = y + 0.5 * self._fed_forward("mlp_out", y, deterministic)
        y = self._norm("final_norm", y)
        if c.layer_drop > 0 and not deterministic:
            y = jnp.where(jax.random.bernoulli(self.make_rng("dropout"), c.layer_drop), x, y)
        return y, None if state is None or count is None else _after(state, new, joined, count)

    def _norm(self, name: str, x: jax.Array) -> jax.Array:
        return LayerNorm(dtype=compute_dtype(self.config.dtype), name=name)(x)

    def _drop(self, x: jax.Array, deterministic: bool) -> jax.Array:
        return nn.Dropout(self.config.dropout)(x, deterministic=deterministic)

    def _fed_forward(self, name: str, x: jax.Array, deterministic: bool) -> jax.Array:
        c = self.config
        mlp = MLP(
            c.hidden,
            c.activation,
            use_bias=c.bias,
            dropout=c.activation_dropout,
            dtype=compute_dtype(c.dtype),
            name=name,
        )
        y = mlp(self._norm(f"{name}_norm", x), deterministic=deterministic)
        return self._drop(y, deterministic)

    def _convolved(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"], before: Float[Array, "B L D"] | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B S D"]]:
        """A gate, a filter of its own for each channel, a norm, a map of all channels; and what the filter read."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        shared: dict[str, Any] = {"use_bias": c.conv_bias, "dtype": dtype}
        x = Linear(2 * c.width, in_names=("embed",), out_names=("mlp",), name="conv_in", **shared)(x)
        x = zero_padded(x[..., : c.width] * jax.nn.sigmoid(x[..., c.width :]), mask)
        if before is None:
            ahead = 0 if c.chunk is not None else c.kernel // 2
            joined = jnp.pad(x, ((0, 0), (c.kernel - 1 - ahead, ahead), (0, 0)))
        else:
            joined = jnp.concatenate([before.astype(x.dtype), x], axis=1)
        x = Conv1d(c.width, c.kernel, groups=c.width, padding="valid", form="unfold", name="conv", **shared)(joined)
        x = activation(c.activation)(self._filtered_norm()(x))
        return Linear(c.width, in_names=("mlp",), out_names=("embed",), name="conv_out", **shared)(x), joined

    def _filtered_norm(self) -> nn.Module:
        kind = FoldedBatchNorm if self.config.norm == "batch" else LayerNorm
        return kind(dtype=compute_dtype(self.config.dtype), name="filtered_norm")


def _after(state: LayerState, new: tuple, joined: Float[Array, "B S D"], count: Int[Array, "B"]) -> LayerState:
    """What is kept behind so many real frames more."""

    def last(old: jax.Array, fresh: jax.Array) -> jax.Array:
        flat = jnp.concatenate([old, fresh.astype(old.dtype)], axis=1)
        rows = rows_from(flat.reshape(*flat.shape[:2], -1), count, old.shape[1])
        return rows.reshape(old.shape)

    convolved = rows_from(joined, count, state.convolved.shape[1]).astype(state.convolved.dtype)
    return LayerState(last(state.keys, new[0]), last(state.values, new[1]), convolved)
