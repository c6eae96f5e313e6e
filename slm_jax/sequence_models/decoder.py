"""One configurable transformer over token ids, whole and step by step."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.caches import CrossCache, KVCache, RingCache, empty_cache, empty_context, empty_ring
from slm_jax.nn.dtypes import at_least_float32, compute_dtype
from slm_jax.nn.linear import Embed, Linear, logits_float32
from slm_jax.nn.positions import Rotation, last_real, positions_from_mask, positions_in_segments, rotation, sinusoidal
from slm_jax.nn.relative_bias import RelativeBias
from slm_jax.nn.stack import Stack, StackOutput
from slm_jax.nn.visibility import visible
from slm_jax.sequence_models.decoder_layer import DecoderLayer, make_norm
from slm_jax.sequence_models.decoder_shape import DecoderShape

State = tuple[KVCache | RingCache | CrossCache, ...]


class Decoder(nn.Module):
    """Token ids to logits. `__call__` reads whole rows; `prefill` and `step` read them piece by piece with a state.

    Rows may be padded on either side or packed with `segment_ids`; positions come from the mask or the segments
    unless given. `embed`, `run` and `head` are the three parts, for models that mix in vectors of their own.
    With `config.context_width` each row listens to a `context`, which a state keeps from the call that brings it on.
    Distances of a relative bias count all entries of a row, unless positions are given (caches count real ones only).
    """

    config: DecoderShape

    stride = 1
    latency = 0

    @property
    def receptive_field(self) -> int | None:
        """Steps that can reach one output; None: all before it, or all where it is not causal."""
        window = self.config.window
        return None if window is None else (window - 1) * self.config.layers + 1

    def setup(self) -> None:
        config = self.config
        dtype, normal = compute_dtype(config.dtype), nn.initializers.normal(config.init_scale)
        self.tokens = Embed(config.vocabulary, config.table_width, embedding_init=normal, dtype=dtype)
        if config.positions == "learned":
            entries = config.max_positions + config.position_offset
            self.places = Embed(entries, config.width, names=(None, "embed"), embedding_init=normal, dtype=dtype)
        if config.relative_bias is not None:
            self.relative_bias = RelativeBias(config.relative_bias, config.heads)
        if config.table_width != config.width:
            dense = partial(Linear, use_bias=False, kernel_init=normal, dtype=dtype)
            self.project_in = dense(config.width, in_names=(None,), out_names=("embed",))
            self.project_out = dense(config.table_width, in_names=("embed",), out_names=(None,))
        self.blocks = Stack(partial(DecoderLayer, config), config.layers, config.unroll, config.remat)
        if config.final_norm:
            self.final_norm = make_norm(config, None)
        if not config.tied_head:
            init = nn.with_logical_partitioning(normal, ("embed", "vocab"))
            self.head_kernel = self.param("head_kernel", init, (config.table_width, config.vocabulary), jnp.float32)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(
        self,
        ids: Int[Array, "B S"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S V"]:
        """Float32 logits of the next token after each entry. `mask`: which entries are real (None: all)."""
        return self.head(self.hidden(ids, positions, segment_ids, mask, context, deterministic=deterministic))

    def hidden(
        self,
        ids: Int[Array, "B S"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S D"]:
        """What the head reads: the output of the final norm (and of the map back to the table's width), scaled."""
        return self.run(self.embed(ids), positions, segment_ids, mask, context, deterministic=deterministic)

    def hidden_states(
        self,
        ids: Int[Array, "B S"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
    ) -> Float[Array, "L B S D"]:
        """Entry 0: what the first layer reads; entry l: what layer l gives, before the final norm. Without dropout."""
        return self.run_states(self.embed(ids), positions, segment_ids, mask, context)

    def run_states(
        self,
        x: Float[Array, "B S D"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
    ) -> Float[Array, "L B S D"]:
        """`hidden_states` from vectors instead of ids."""
        x, out = self._stacked(x, positions, segment_ids, mask, context, True, collect=True)
        assert out.hidden is not None  # for the type checker: `collect` fills it
        return jnp.concatenate([x[None], out.hidden])

    def embed(self, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Token vectors of the stack's width, scaled, without positions."""
        x = self.tokens(ids) * self.config.embed_scale
        return x if self.config.table_width == self.config.width else self.project_in(x)

    def run(
        self,
        x: Float[Array, "B S D"],
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
        context: Frames | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B S E"]:
        """`hidden` from vectors instead of ids."""
        return self._finish(self._stacked(x, positions, segment_ids, mask, context, deterministic)[1].values)

    def _stacked(
        self,
        x: jax.Array,
        positions: Any,
        segment_ids: Any,
        mask: Any,
        context: Frames | None,
        deterministic: bool,
        collect: bool = False,
    ) -> tuple[jax.Array, StackOutput]:
        """What the first layer reads and what the stack makes of it."""
        context = self._heard(context, len(x))
        length = x.shape[1]
        self._require_room(length)
        bias = self._bias(jnp.arange(length)[None] if positions is None else positions)
        if positions is None:
            positions = self._positions(x, segment_ids, mask)
        sees = visible(mask, segment_ids, self.config.window, self.config.causal)
        x, by = self._place(x, positions, deterministic)
        return x, self.blocks(x, None, (sees, by, None, context, bias), collect=collect, deterministic=deterministic)

    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Float32 logits from what `hidden` returns."""
        return logits_float32(features, self.head_matrix().astype(features.dtype))

    def head_matrix(self) -> Float[Array, "D V"]:
        """The matrix of `head`, for losses that never hold all logits at once."""
        return self.tokens.embedding.T if self.config.tied_head else self.head_kernel

    def initial_state(self, batch: int, capacity: int | None, dtype: Any = None) -> State:
        """Empty caches for rows of up to `capacity` entries (None: without end); no parameters needed.

        With a window shorter than that, rings of the window's size: memory and programs do not depend on how long a
        session lasts. Without end needs a window, and positions that are no table.
        """
        config = self.config
        require(config.causal, "causal", config.causal, "what sees later entries reads whole rows, not step by step")
        if capacity is None:
            endless = config.window is not None and config.positions != "learned"
            require(endless, "capacity", None, "a session without end needs a window and no table of positions")
        else:
            self._require_room(capacity)
        dtype = compute_dtype(config.dtype) if dtype is None else dtype
        if config.window is not None and (capacity is None or capacity > config.window):
            make = partial(empty_ring, batch, config.window, config.groups, config.channels, dtype)
        else:
            make = partial(empty_cache, batch, capacity, config.groups, config.channels, dtype, config.window)
        if config.context_width is None:
            return tuple(make() for _ in range(config.layers))
        nothing = empty_context(batch, 0, config.groups, config.channels, dtype)
        return tuple(CrossCache(make(), nothing) for _ in range(config.layers))

    def step(
        self, ids: Int[Array, "B T"], state: State, mask: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T V"], State]:
        """Logits after each of the next entries (any number T) and the new state; masked entries leave no trace."""
        features, state = self.extend(self.embed(ids), state, mask)
        return self.head(features), state

    def prefill(
        self,
        ids: Int[Array, "B T"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> tuple[Float[Array, "B V"], State]:
        """Logits after the last real entry of each row and the new state; padding may stand on either side."""
        features, state = self.extend(self.embed(ids), state, mask, context)
        return self.head(last_real(features, mask)), state

    def extend(
        self,
        x: Float[Array, "B T D"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> tuple[Float[Array, "B T E"], State]:
        """`step` from vectors to what the head reads; a `context` takes the place of the one that the state keeps."""
        context = None if context is None and _listens(state) else self._heard(context, len(x))
        real = jnp.ones(x.shape[:2], bool) if mask is None else mask
        positions = state[0].positions(real)
        bias = self._bias(positions, state[0])
        x, by = self._place(x, positions, True)
        out = self.blocks(x, state, (None, by, real, context, bias), deterministic=True)
        return self._finish(out.values), out.caches

    def reset(self, state: State, rows: Bool[Array, "B"]) -> State:
        """With the given rows emptied."""
        return tuple(cache.reset(rows) for cache in state)

    def _positions(self, x: jax.Array, segment_ids: Any, mask: Any) -> jax.Array:
        if segment_ids is not None:
            return positions_in_segments(segment_ids)
        return positions_from_mask(jnp.ones(x.shape[:2], bool) if mask is None else mask)

    def _place(self, x: jax.Array, positions: jax.Array, deterministic: bool) -> tuple[jax.Array, Rotation | None]:
        """Adds position vectors, or gives the rotation of queries and keys."""
        config, by = self.config, None
        if config.positions == "learned":
            x = x + self.places(positions + config.position_offset)
        elif config.positions in ("sinusoidal", "cosines_first"):
            places = positions + config.position_offset
            x = x + sinusoidal(places, config.width, config.positions == "cosines_first").astype(x.dtype)
        elif config.positions == "rope":
            dtype = at_least_float32(x.dtype)
            by = rotation(positions, config.channels, config.rope_base, config.rope_scaling, dtype)
        return self.dropout(x, deterministic=deterministic), by

    def _bias(self, positions: jax.Array, cache: Any = None) -> jax.Array | None:
        """The relative bias of entries at these positions to each other or to the slots of a cache, if there is one."""
        if self.config.relative_bias is None:
            return None
        own = cache.own if isinstance(cache, CrossCache) else cache  # growing: a window goes without relative bias
        slots = positions if own is None else jnp.broadcast_to(jnp.arange(own.capacity), (len(positions), own.capacity))
        return self.relative_bias.bias_for(positions, slots)

    def _finish(self, x: jax.Array) -> jax.Array:
        x = self.final_norm(x) if self.config.final_norm else x
        x = x if self.config.table_width == self.config.width else self.project_out(x)
        return x if self.config.head_scale == 1.0 else x * self.config.head_scale

    def _heard(self, context: Frames | None, rows: int) -> Frames | None:
        """The context if it is the right one, with zeros in its padding: a weight of nought would keep a NaN there."""
        width = self.config.context_width
        given = None if context is None else (context.values.shape[0], context.values.shape[-1])
        wanted = None if width is None else (rows, width)
        rule = "this decoder listens to none" if width is None else f"must be {wanted}: what each row listens to"
        require(given == wanted, "context (rows, width)", given, rule)
        if context is None:
            return None
        return Frames(jnp.where(context.mask[..., None], context.values, 0.0), context.mask)

    def _require_room(self, length: int) -> None:
        limit = self.config.max_positions
        require(limit is None or length <= limit, "length", length, f"this decoder has {limit} positions")


def _listens(state: State) -> bool:
    """Whether a state keeps a context."""
    return isinstance(state[0], CrossCache) and state[0].context.mask.shape[1] > 0
