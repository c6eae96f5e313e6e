"""The smallest decoder over several streams: their vectors are summed, one stack reads them, each has a head."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import ABSENT, Frames
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Embed, Linear, logits_float32
from slm_jax.sequence_models.decoder import Decoder, State
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.grid import GridConfig
from slm_jax.sequence_models.over_streams import OverStreams


class MultiStreamConfig(Config):
    """`streams`: how many ids each has. `body`: the stack; its own table and head are not there, so neither is used.

    Weights beside the stack: for every stream a table and a head of its size times the width. `averaged`: the stack
    reads the mean of the vectors of a step, not their sum. `blanks`: an empty entry has a vector of its own, one more
    row at the end of its table (MusicGen's padding), and counts as the others unless it is `ABSENT`; without it adds
    nothing. `heads`: so many of the first streams have a head; None: all. `scaled`: of so many of the first streams
    are vectors multiplied by `body.embed_scale`; None: of all.

    `grids`: of each stream, None or the grid on which its real numbers lie (`streams` has its count); such a stream has
    a linear map of its number in place of a table, and a head that gives a mean. `ignored` streams are read as if they
    were 0 everywhere (pGSLM without prosodic input).
    """

    streams: tuple[int, ...]
    body: DecoderConfig
    averaged: bool = False
    blanks: bool = False
    heads: int | None = None
    scaled: int | None = None
    grids: tuple[GridConfig | None, ...] = ()
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.streams) >= 1, "streams", self.streams, "at least one")
        require(all(size >= 1 for size in self.streams), "streams", self.streams, "each has at least one id")
        rule = f"as many as the {len(self.streams)} streams at most"
        for name in ("heads", "scaled"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= len(self.streams), name, value, rule)
        counts = tuple(n if grid is None else grid.count for grid, n in zip(self.grids, self.streams, strict=False))
        fits = self.grids == () or counts == self.streams
        require(fits, "grids", self.grids, f"None or a grid for each of the streams {self.streams}, of its size")
        known = all(0 <= k < len(self.streams) for k in self.ignored)
        require(known, "ignored", self.ignored, f"some of the {len(self.streams)} streams")
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

    def grid(self, stream: int) -> GridConfig | None:
        """On which the numbers of a stream lie; None: it holds classes."""
        return self.grids[stream] if self.grids else None

    def nothing(self, stream: int) -> int:
        """The id that an ignored stream has everywhere."""
        grid = self.grid(stream)
        return 0 if grid is None else int(grid.ids(np.zeros(())))

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
        self.tables = [self._reader(k, table) for k in range(len(self.config.streams))]
        self.body = Decoder(body)
        init = nn.with_logical_partitioning(normal, ("embed", "vocab"))
        self.heads = [
            self.param(f"head_{k}", init, (body.width, size if self.config.grid(k) is None else 1), jnp.float32)
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
        """The sum or the mean of the vectors of all streams."""
        for k in self.config.ignored:
            ids = jnp.asarray(ids).at[..., k].set(self.config.nothing(k))
        filled = ids >= 0
        if self.config.blanks:
            ids, filled = jnp.where(filled, ids, jnp.array(self.config.streams)), ids != ABSENT
        vectors = [jnp.where(filled[..., k, None], self._vectors(ids, k), 0) for k in range(len(self.tables))]
        total = sum(vectors[1:], vectors[0])
        return total / jnp.maximum(filled.sum(-1, keepdims=True), 1) if self.config.averaged else total

    def _reader(self, stream: int, table: Callable[[int], nn.Module]) -> nn.Module:
        """What makes vectors of a stream."""
        if self.config.grid(stream) is None:
            return table(self.config.streams[stream] + self.config.blanks)
        return Linear(self.config.body.width, (None,), ("embed",), dtype=compute_dtype(self.config.body.dtype))

    def _vectors(self, ids: Int[Array, "B S K1"], stream: int) -> Float[Array, "B S D"]:
        """Those of one stream, scaled where they are to be."""
        config, read = self.config, ids[..., stream]
        grid = config.grid(stream)
        vectors = self.tables[stream](read if grid is None else grid.values(read)[..., None])
        scaled = config.scaled is None or stream < config.scaled
        return vectors * config.body.embed_scale if scaled else vectors

    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*B K1 V"]:
        """Float32 logits of every stream that has a head, from what `hidden` returns."""
        return jnp.stack([self._of_stream(features, k) for k in range(len(self.heads))], axis=-2)

    def _of_stream(self, features: Float[Array, "*B D"], stream: int) -> Float[Array, "*B V"]:
        logits, grid = logits_float32(features, self.heads[stream].astype(features.dtype)), self.config.grid(stream)
        logits = logits if grid is None else grid.logits(logits)
        missing = self.config.vocabulary - logits.shape[-1]
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
