"""The smallest decoder over several streams: their vectors are summed, one stack reads them, each has a head."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Embed, logits_float32
from slm_jax.sequence_models.decoder import Decoder, State
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.over_streams import OverStreams


class MultiStreamConfig(Config):
    """`streams`: how many ids each has. `body`: the stack; its own table and head are not there, so neither is used.

    Weights beside the stack: for every stream a table and a head of its size times the width. `averaged`: the stack
    reads the mean of the vectors of a step, not their sum. `blanks`: an empty entry has a vector of its own, one more
    row at the end of its table (MusicGen's padding), and counts as the others; without it adds nothing. `heads`: so
    many of the first streams have a head; None: all.
    """

    streams: tuple[int, ...]
    body: DecoderConfig
    averaged: bool = False
    blanks: bool = False
    heads: int | None = None

    def __post_init__(self) -> None:
        require(len(self.streams) >= 1, "streams", self.streams, "at least one")
        require(all(size >= 1 for size in self.streams), "streams", self.streams, "each has at least one id")
        rule = f"as many as the {len(self.streams)} streams at most"
        require(self.heads is None or 0 <= self.heads <= len(self.streams), "heads", self.heads, rule)
        require(self.body.tied_head, "body.tied_head", False, "the streams have heads of their own")
        require(
            self.body.embed_width is None, "body.embed_width", self.body.embed_width, "tables have the stack's width"
        )

    @property
    def vocabulary(self) -> int:
        """Ids of the largest stream."""
        return max(self.streams)

    @property
    def max_positions(self) -> int | None:
        """Longest row; None: no bound."""
        return self.body.max_positions

    def make(self) -> "MultiStream":
        """The decoder of this shape."""
        return MultiStream(self)


class MultiStream(OverStreams):
    """Ids of K1 streams, one vector of them per step, to the logits of each stream's next id.

    An id below 0 (`EMPTY`) is an empty entry. Logits of streams that are smaller than the largest are `-inf`
    beyond their size, so that all have one shape. Methods are those of `Decoder`.
    """

    config: MultiStreamConfig

    def setup(self) -> None:
        body, normal = self.config.body, nn.initializers.normal(self.config.body.init_scale)
        table = partial(Embed, features=body.width, embedding_init=normal, dtype=compute_dtype(body.dtype))
        self.tables = [table(size + self.config.blanks) for size in self.config.streams]
        self.body = Decoder(body)
        init = nn.with_logical_partitioning(normal, ("embed", "vocab"))
        self.heads = [
            self.param(f"head_{k}", init, (body.width, size), jnp.float32)
            for k, size in enumerate(self.config.streams[: self.config.heads])
        ]

    def __call__(
        self,
        ids: Int[Array, "B S K1"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S K1 V"]:
        """Float32 logits of what follows each step. `mask`: which steps are real (None: all)."""
        return self.head(self.hidden(ids, positions, segment_ids, mask, context, deterministic=deterministic))

    def hidden(
        self,
        ids: Int[Array, "B S K1"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S D"]:
        """What the heads read."""
        return self.body.run(self.embed(ids), positions, segment_ids, mask, context, deterministic=deterministic)

    def hidden_states(
        self, ids: Int[Array, "B S K1"], mask: Bool[Array, "B S"] | None = None, context: Frames | None = None
    ) -> Float[Array, "L B S D"]:
        """Entry 0: what the first layer reads; entry l: what layer l gives, before the final norm. Without dropout."""
        return self.body.run_states(self.embed(ids), mask=mask, context=context)

    def embed(self, ids: Int[Array, "B S K1"]) -> Float[Array, "B S D"]:
        """The sum or the mean of the vectors of all streams, scaled."""
        filled = ids >= 0
        if self.config.blanks:
            ids, filled = jnp.where(filled, ids, jnp.array(self.config.streams)), jnp.ones_like(filled)
        vectors = [jnp.where(filled[..., k, None], table(ids[..., k]), 0) for k, table in enumerate(self.tables)]
        total = sum(vectors[1:], vectors[0]) * self.config.body.embed_scale
        return total / jnp.maximum(filled.sum(-1, keepdims=True), 1) if self.config.averaged else total

    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*B K1 V"]:
        """Float32 logits of every stream that has a head, from what `hidden` returns."""
        return jnp.stack([self._of_stream(features, kernel) for kernel in self.heads], axis=-2)

    def _of_stream(self, features: Float[Array, "*B D"], kernel: Float[Array, "D _"]) -> Float[Array, "*B V"]:
        logits = logits_float32(features, kernel.astype(features.dtype))
        missing = self.config.vocabulary - kernel.shape[1]
        return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, missing)], constant_values=-jnp.inf)

    def extend(
        self,
        x: Float[Array, "B T D"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """What the heads read of the next vectors, and the new state."""
        return self.body.extend(x, state, mask, context)
