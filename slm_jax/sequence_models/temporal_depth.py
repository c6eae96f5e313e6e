"""A large transformer over time and a small one over the entries of each step (Lee et al. 2022; Moshi, 2024)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY, Frames
from slm_jax.sequence_models.decoder import State
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.depth import Depth, DepthConfig, Kept
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.over_streams import OverStreams


class TemporalDepthConfig(Config):
    """`temporal` reads all streams of a step; its own `heads` write the first ones (Moshi: 1, the text; here 0 unless
    it says so), `depth` those behind them, up to `written` (None: all). Streams behind those are read alone: they have
    to be forced (what a user says).
    """

    temporal: MultiStreamConfig
    depth: DepthConfig
    written: int | None = None

    ordered = True

    def __post_init__(self) -> None:
        rule = "how many of the first streams the larger model writes: given, and fewer than there are"
        heads = self.temporal.heads
        require(heads is not None and heads < len(self.streams), "temporal.heads", heads, rule)
        rule = f"more than the larger model writes, at most the {len(self.streams)} streams"
        require(self.first < self.count <= len(self.streams), "written", self.written, rule)

    @property
    def streams(self) -> tuple[int, ...]:
        """Ids of each stream."""
        return self.temporal.streams

    @property
    def body(self) -> DecoderConfig:
        """The stack of the larger model."""
        return self.temporal.body

    @property
    def vocabulary(self) -> int:
        """Ids of the largest stream."""
        return self.temporal.vocabulary

    @property
    def max_positions(self) -> int | None:
        """Longest row; None: no bound."""
        return self.temporal.max_positions

    @property
    def count(self) -> int:
        """How many streams are written."""
        return len(self.streams) if self.written is None else self.written

    @property
    def first(self) -> int:
        """The first stream that the smaller model writes."""
        return self.temporal.heads or 0

    def make(self) -> "TemporalDepth":
        """The model of this shape."""
        return TemporalDepth(self)

    def make_depth(self, name: str | None = None) -> Depth:
        """The smaller model: each of its entries is given the one before it, the first one the larger model's last."""
        first, last = self.first, self.count
        reads = ((0,) if first == 0 else ()) + self.streams[max(first - 1, 0) : last - 1]
        return Depth(self.depth, self.streams[first:last], reads, self.temporal.blanks, name=name)


class TemporalDepth(OverStreams):
    """As `MultiStream`, but a step gives features, which `entry` reads entry by entry."""

    config: TemporalDepthConfig

    def setup(self) -> None:
        self.temporal = self.config.temporal.make()
        self.depth = self.config.make_depth()

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
        """Float32 logits of what follows each step, each entry given those of the same step before it.

        Behind the last step nothing stands before an entry. Streams that are not written have logits of 0.
        """
        features = self.hidden(ids, positions, segment_ids, mask, context, deterministic=deterministic)
        following = jnp.concatenate([ids[:, 1:], jnp.full_like(ids[:, :1], EMPTY)], axis=1)
        return self.given(features, following)

    def given(self, features: Float[Array, "B S D"], ids: Int[Array, "B S K1"]) -> Float[Array, "B S K1 V"]:
        """Logits of the entries of steps whose ids are known, from what the larger model made of what came before."""
        config, first = self.config, self.config.first
        rows, entries = ids.shape[0] * ids.shape[1], ids.reshape(-1, ids.shape[2])
        before = jnp.pad(entries, ((0, 0), (1, 0)), constant_values=EMPTY)[:, first : config.count]
        by_depth = self.depth(features.reshape(rows, -1), before)
        parts = [self._wide(by_depth)]
        if first:
            parts.insert(0, self._wide(self.temporal.head(features).reshape(rows, first, -1)))
        parts.append(jnp.zeros((rows, len(config.streams) - config.count, config.vocabulary), jnp.float32))
        return jnp.concatenate(parts, axis=1).reshape(*ids.shape, -1)

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
        """What the larger model makes of each step."""
        return self.temporal.hidden(ids, positions, segment_ids, mask, context, deterministic=deterministic)

    def embed(self, ids: Int[Array, "B S K1"]) -> Float[Array, "B S D"]:
        """Vectors of steps."""
        return self.temporal.embed(ids)

    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """What `entry` reads: the features themselves."""
        return features

    def entry(
        self, features: Float[Array, "B D"], before: Int[Array, "B"], k: int, kept: tuple[Kept, ...] | None
    ) -> tuple[Float[Array, "B V"], tuple[Kept, ...] | None]:
        """Logits of entry k after the id before it, and what the next entry needs."""
        first = self.config.first
        if k < first:
            return self._wide(self.temporal.head(features)[:, k]), None
        if k >= self.config.count:
            return jnp.zeros((len(features), self.config.vocabulary), jnp.float32), kept
        logits, kept = self.depth.step(features, before, k - first, kept)
        return self._wide(logits), kept

    def extend(
        self,
        x: Float[Array, "B T D"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """What the larger model makes of the next vectors, and the new state."""
        return self.temporal.extend(x, state, mask, context)

    def _wide(self, logits: Float[Array, "*B V"]) -> Float[Array, "*B V2"]:
        """Of the largest stream's size."""
        missing = self.config.vocabulary - logits.shape[-1]
        return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, missing)], constant_values=-jnp.inf)
