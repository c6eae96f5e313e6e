"""The smaller of two transformers: writes the entries of one step one after the other (RQ-Transformer; Moshi)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import ABSENT
from slm_jax.nn.attend import attend
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Embed, Linear, logits_float32
from slm_jax.nn.mlp import activation
from slm_jax.nn.norm import RMSNorm
from slm_jax.nn.stack import Stack
from slm_jax.nn.step_linear import StepLinear

Kept = tuple[Float[Array, "B _ H C"], Float[Array, "B _ H C"]]
"""Keys and values of the entries so far."""


class DepthConfig(Config):
    """A transformer over the few entries of a step: RMS norms before each half, gated feed-forward blocks, no biases.

    `per_step`: every entry has kernels of its own in all dense maps (Moshi), the norms serve all; otherwise one set
    serves every entry. `positions`: a learnt vector for each entry, which shared kernels need to tell them apart.
    `table_width`: the tables are so narrow, with a map to `width` (low-rank tables); None: as wide as it.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    per_step: bool = True
    positions: bool = False
    table_width: int | None = None
    activation: str = "silu"
    norm_epsilon: float = 1e-8
    final_norm: bool = False
    init_scale: float = 0.02
    unroll: str | bool = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide width {self.width}")
        require(self.table_width is None or self.table_width >= 1, "table_width", self.table_width, "at least 1")
        activation(self.activation)
        compute_dtype(self.dtype)


class Depth(nn.Module):
    """What the larger model made of a step, and the ids before each entry, to the logits of the entries.

    `writes`: ids of each of the J entries. `reads`: ids of what stands before each (0: nothing stands before it); an id
    below 0 is an empty entry and adds nothing, or with `blanks` the vector of one more row of its table.
    """

    config: DepthConfig
    writes: tuple[int, ...]
    reads: tuple[int, ...]
    blanks: bool = False

    def setup(self) -> None:
        config, steps = self.config, len(self.writes)
        dtype, normal = compute_dtype(config.dtype), nn.initializers.normal(config.init_scale)
        count = steps if config.per_step else 1
        self.bring = StepLinear(count, (config.width,), ("embed",), (None,), dtype=dtype)
        table = partial(Embed, features=config.table_width or config.width, embedding_init=normal, dtype=dtype)
        self.tables: list[Any] = [table(size + self.blanks) if size else None for size in self.reads]
        if config.table_width is not None:
            dense = partial(Linear, config.width, (None,), ("embed",), use_bias=False, dtype=dtype)
            self.widen: list[Any] = [dense() if size else None for size in self.reads]
        if config.positions:
            self.places = Embed(steps, config.width, names=(None, "embed"), embedding_init=normal, dtype=dtype)
        self.blocks = Stack(partial(DepthLayer, config, count), config.layers, config.unroll)
        if config.final_norm:
            self.final_norm = RMSNorm(config.norm_epsilon, dtype=dtype)
        init = nn.with_logical_partitioning(normal, ("embed", "vocab"))
        self.heads = [self.param(f"head_{j}", init, (config.width, n), jnp.float32) for j, n in enumerate(self.writes)]

    def __call__(self, features: Float[Array, "B D"], before: Int[Array, "B J"]) -> Float[Array, "B J V"]:
        """Float32 logits of all entries, given what really stood before each."""
        x = self._read(features, before, 0)
        y = self._finish(self.blocks(x, None, first=0).values)
        return jnp.stack([self._logits(y[:, j], j) for j in range(len(self.writes))], axis=1)

    def step(
        self, features: Float[Array, "B D"], before: Int[Array, "B"], entry: int, kept: tuple[Kept, ...] | None
    ) -> tuple[Float[Array, "B V"], tuple[Kept, ...]]:
        """Logits of one entry, and what the next one needs. `kept`: what the entry before gave; None for the first."""
        x = self._read(features, before[:, None], entry)
        caches = (None,) * self.config.layers if kept is None else kept
        out = self.blocks(x, caches, first=entry)
        assert out.caches is not None  # for the type checker
        return self._logits(self._finish(out.values)[:, 0], entry), out.caches

    def _read(self, features: Float[Array, "B D"], before: Int[Array, "B T"], first: int) -> Float[Array, "B T W"]:
        count = before.shape[1]
        x = self.bring(jnp.repeat(features[:, None], count, axis=1), first)
        vectors = [self._vector(before[:, t], first + t) for t in range(count)]
        x = x + jnp.stack([jnp.zeros_like(x[:, 0]) if one is None else one for one in vectors], axis=1)
        return x + self.places(jnp.arange(first, first + count)) if self.config.positions else x

    def _vector(self, ids: Int[Array, "B"], entry: int) -> Float[Array, "B W"] | None:
        if not self.reads[entry]:
            return None
        given = jnp.where(ids < 0, self.reads[entry], ids) if self.blanks else jnp.maximum(ids, 0)
        x = self.tables[entry](given)
        x = x if self.config.table_width is None else self.widen[entry](x)
        adds = ids != ABSENT if self.blanks else ids >= 0
        return jnp.where(adds[:, None], x, 0)

    def _finish(self, x: Float[Array, "B T W"]) -> Float[Array, "B T W"]:
        return self.final_norm(x) if self.config.final_norm else x

    def _logits(self, x: Float[Array, "B W"], entry: int) -> Float[Array, "B V"]:
        logits = logits_float32(x, self.heads[entry].astype(x.dtype))
        missing = max(self.writes) - self.writes[entry]
        return jnp.pad(logits, ((0, 0), (0, missing)), constant_values=-jnp.inf)


class DepthLayer(nn.Module):
    """Causal attention among the entries of a step and a gated feed-forward block."""

    config: DepthConfig
    count: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T W"], kept: Kept | None, *, first: int
    ) -> tuple[Float[Array, "B T W"], Kept]:
        config, dtype = self.config, compute_dtype(self.config.dtype)
        norm = partial(RMSNorm, config.norm_epsilon, dtype=dtype)
        dense = partial(StepLinear, self.count, dtype=dtype)
        heads = (config.heads, config.width // config.heads)
        y = norm(name="attention_norm")(x)
        q, k, v = (dense(heads, ("embed",), ("heads", "head"), name=n)(y, first) for n in ("query", "key", "value"))
        if kept is not None:
            k, v = jnp.concatenate([kept[0], k], axis=1), jnp.concatenate([kept[1], v], axis=1)
        sees = jnp.arange(k.shape[1]) <= jnp.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None]
        y = attend(q, k, v, mask=sees[None])
        x = x + dense((config.width,), ("heads", "head"), ("embed",), name="out")(y, first)
        y = norm(name="mlp_norm")(x)
        gate, up = (dense((config.hidden,), name=name)(y, first) for name in ("gate", "up"))
        y = activation(config.activation)(gate) * up
        return x + dense((config.width,), ("mlp",), ("embed",), name="down")(y, first), (k, v)
