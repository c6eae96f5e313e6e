"""One step of any decoder, as one pure function: `advance(variables, step_in, state, key) -> (step_out, state)`.

Offline generation is a `while_loop` over it (`generation.decode`), a session the same function jitted with donated
state (`serving.session`): tokens of a stream equal those offline by construction. A row draws with
`fold_in(its key, how often it drew)`, so that it gets the same in any batch and from any start.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY, pytree_dataclass, static
from slm_jax.generation.rules import Rules, rules_of
from slm_jax.generation.sampling import SamplingConfig, draw, guided, keep_top_k, narrowed


class StepModel(Protocol):
    """What decoding asks of a model: methods reached through `apply`, and hashable fields.

    One stream: `config.vocabulary`, ids `[B, T]`, logits `[B, T, V]`. Several: `config.streams`, their sizes, ids
    `[B, T, K1]`, logits `[B, T, K1, V]`. Where `config.ordered` holds, the entries of a step are written one after the
    other: `entry(read, before, k, kept)` reads what `prefill` and `step` give, and says what entry k is after the id
    before it.
    """

    def initial_state(self, batch: int, capacity: int | None, dtype: Any = None) -> Any: ...
    def prefill(self, ids: Any, state: Any, mask: Any) -> tuple[Any, Any]: ...
    def step(self, ids: Any, state: Any, mask: Any) -> tuple[Any, Any]: ...


@pytree_dataclass
class StepIn:
    """What a step is told: -1 where the model draws, an id where it is forced, `EMPTY` where nothing is to stand.

    A row that is not active rests.
    """

    ids: Int[Array, "B K1"]
    active: Bool[Array, "B"]


@pytree_dataclass
class StepOut:
    """What was written: -1 for rows that rested or had ended.

    `log_probs` are those of the model itself, before temperature and the other rules, for forced ids too; 0 where
    nothing was written, nothing had been written before or the entry is `EMPTY`.
    """

    ids: Int[Array, "B K1"]
    log_probs: Float[Array, "B K1"]
    ended: Bool[Array, "B"]


@pytree_dataclass
class State:
    """Where every row stands.

    `last`: the ids written last, which the model has not read yet; all -1 in a row that is new. `written`: entries of
    the stream so far, prompt included; `drawn`: steps in which something was drawn. `seen`: only with a repetition
    penalty.
    """

    caches: Any
    last: Int[Array, "B K1"]
    written: Int[Array, "B"]
    drawn: Int[Array, "B"]
    seen: Bool[Array, "B K1 V"] | None
    ended: Bool[Array, "B"]


@pytree_dataclass
class Decoding:
    """A model and the rules by which it is decoded; a tree whose arrays are those of the rules."""

    rules: Rules
    model: Any = static()
    config: SamplingConfig = static()

    @property
    def copies(self) -> int:
        """Rows of the model for each row decoded: with guidance one with and one without the condition."""
        return 1 if self.config.guidance is None else 2

    def initial_state(self, batch: int, capacity: int | None, start: Int[Array, "K1"] | None = None) -> State:
        """New rows with room for `capacity` entries (None: without end); `start`: what they read first."""
        sizes = stream_sizes(self.model)
        first = jnp.full(len(sizes), -1, jnp.int32) if start is None else start.astype(jnp.int32)
        penalised = self.config.repetition_penalty != 1.0
        return State(
            caches=self.model.initial_state(batch * self.copies, capacity),
            last=jnp.tile(first, (batch, 1)),
            written=jnp.zeros(batch, jnp.int32),
            drawn=jnp.zeros(batch, jnp.int32),
            seen=jnp.zeros((batch, len(sizes), max(sizes)), bool) if penalised else None,
            ended=jnp.zeros(batch, bool),
        )

    def reset(self, state: State, rows: Bool[Array, "B"], start: Int[Array, "K1"] | None = None) -> State:
        """With the given rows as new, and the others as they were."""
        first = -1 if start is None else start.astype(jnp.int32)
        return State(
            caches=self.model.reset(state.caches, jnp.repeat(rows, self.copies)),
            last=jnp.where(rows[:, None], first, state.last),
            written=jnp.where(rows, 0, state.written),
            drawn=jnp.where(rows, 0, state.drawn),
            seen=None if state.seen is None else state.seen & ~rows[:, None, None],
            ended=state.ended & ~rows,
        )

    def advance(self, variables: Any, step_in: StepIn, state: State, key: Key[Array, "B"]) -> tuple[StepOut, State]:
        """The model reads what was written last and writes the next ids. A new row has nothing to draw from: force it.

        `key`: one for each row, the same at every step.
        """
        reads = _moving(step_in, state) & _begun(state)
        ids, real = jnp.repeat(state.last, self.copies, axis=0), jnp.repeat(reads, self.copies)
        ids = ids[:, None] if has_streams(self.model) else ids
        logits, caches = self.model.apply(variables, ids, state.caches, real[:, None], method="step")
        return self.write(variables, logits[:, 0], step_in, dataclasses.replace(state, caches=caches), key)

    def write(
        self, variables: Any, read: Float[Array, "N *K1 V"], step_in: StepIn, state: State, key: Key[Array, "B"]
    ) -> tuple[StepOut, State]:
        """The second half of `advance`, from what the model gave for the next step (N: the model's rows)."""
        moving, free = _moving(step_in, state), step_in.ids == -1
        if is_ordered(self.model):
            ids, log_probs = self._in_order(variables, read, step_in, state, key)
        else:
            logits = read.reshape(len(state.last), self.copies, -1, read.shape[-1])  # [B, copies, K1, V]
            ids, log_probs = self._chosen(logits, step_in.ids, state, key, 0)
        ids = self._alone(ids)
        known = (moving & _begun(state))[:, None] & (ids >= 0)
        ended = state.ended | (moving & free[:, 0] & self.rules.are_ends(ids[:, 0]))
        out = StepOut(jnp.where(moving[:, None], ids, -1), jnp.where(known, log_probs, 0.0), ended)
        return out, State(
            caches=state.caches,
            last=jnp.where(moving[:, None], ids, state.last),
            written=state.written + moving,
            drawn=state.drawn + (moving & free.any(-1)),
            seen=None if state.seen is None else mark(state.seen, ids[:, None], moving[:, None]),
            ended=ended,
        )

    def _alone(self, ids: Int[Array, "B K1"]) -> Int[Array, "B K1"]:
        """With nothing beside an id of stream 0 that stands alone."""
        if not self.config.alone:
            return ids
        stands = (ids[:, :1] >= 0) & (ids[:, :1] < self.config.alone)
        return ids.at[:, 1:].set(jnp.where(stands, EMPTY, ids[:, 1:]))

    def _in_order(
        self, variables: Any, read: Float[Array, "N D"], step_in: StepIn, state: State, key: Key[Array, "B"]
    ) -> tuple[Int[Array, "B K1"], Float[Array, "B K1"]]:
        """The entries of a step one after the other, each given those before it."""
        rows, streams = step_in.ids.shape
        before, kept, found = jnp.full(rows, EMPTY), None, []
        for k in range(streams):
            given = jnp.repeat(before, self.copies)
            logits, kept = self.model.apply(variables, read, given, k, kept, method="entry")
            logits = logits.reshape(rows, self.copies, 1, -1)
            found.append(self._chosen(logits, step_in.ids[:, k : k + 1], state, key, k))
            before = found[-1][0][:, 0]
        ids, log_probs = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        return ids, log_probs

    def _chosen(
        self, logits: Float[Array, "B M K V"], told: Int[Array, "B K"], state: State, key: Key[Array, "B"], first: int
    ) -> tuple[Int[Array, "B K"], Float[Array, "B K"]]:
        """Ids of the streams from `first` on, drawn unless told, and the model's own log-probabilities of them."""
        ids = jnp.where(told == -1, self._drawn(logits, state, key, first), told)
        taken = jnp.maximum(ids, 0)[..., None]
        return ids, jnp.take_along_axis(jax.nn.log_softmax(logits[:, 0], axis=-1), taken, axis=-1)[..., 0]

    def _drawn(
        self, logits: Float[Array, "B M K V"], state: State, key: Key[Array, "B"], first: int
    ) -> Int[Array, "B K"]:
        """What each of these streams of each row would draw."""
        rows, _, given, vocabulary = logits.shape
        flat, own = (rows * given, vocabulary), slice(first, first + given)
        chosen = logits[:, 0].reshape(flat)
        if self.config.guidance is not None:
            chosen = guided(chosen, logits[:, 1].reshape(flat), self.config.guidance)
        if self.config.temperatures:
            chosen = chosen / jnp.tile(self._coldest()[own], rows)[:, None]
        if self.config.top_ks:
            kept = zip(jnp.split(chosen.reshape(rows, given, -1), given, axis=1), self.config.top_ks[own], strict=True)
            parts = [keep_top_k(one[:, 0], k or vocabulary) for one, k in kept]
            chosen = jnp.stack(parts, axis=1).reshape(flat)
        streams = len(stream_sizes(self.model))
        legal = self._legal(state, streams, vocabulary)
        legal = None if legal is None else jnp.broadcast_to(legal[:, own], (rows, given, vocabulary)).reshape(flat)
        seen = None if state.seen is None else state.seen[:, own].reshape(flat)
        keys = jax.vmap(jax.random.fold_in)(key, state.drawn)
        if streams > 1:
            keys = jax.vmap(lambda one: jax.random.split(one, streams)[own])(keys).reshape(-1)
        return draw(narrowed(chosen, seen, legal, self.config), keys, self.config).reshape(rows, given)

    def _coldest(self) -> Float[Array, "K"]:
        """Temperatures of the streams; 0 is so cold that the likeliest is drawn."""
        return jnp.maximum(jnp.array(self.config.temperatures), 1e-7)

    def _legal(self, state: State, streams: int, vocabulary: int) -> Bool[Array, "#B K1 V"] | None:
        legal = self.rules.now(state.written, state.drawn)
        if self.config.min_new == 0 or len(self.rules.ends) == 0:
            return legal
        late = state.drawn[:, None, None] >= self.config.min_new
        ends_nothing = jnp.ones((streams, vocabulary), bool).at[0].set(self.rules.without_ends(vocabulary))
        return (late | ends_nothing) & (True if legal is None else legal)


def decoding(model: Any, config: SamplingConfig, rules: Rules | None = None) -> Decoding:
    """The decoding of `model` under `config`; `rules` None: those that `config` names.

    Raises `UserError` for rules that are not of the model's shape.
    """
    sizes = stream_sizes(model)
    rules = rules_of(config, sizes) if rules is None else rules
    rules.fit(sizes)
    for name in ("temperatures", "top_ks"):
        own = getattr(config, name)
        require(len(own) in (0, len(sizes)), name, own, f"one for each of the {len(sizes)} streams")
    return Decoding(rules, model, config)


def is_ordered(model: Any) -> bool:
    """Are the entries of a step written one after the other?"""
    return bool(getattr(model.config, "ordered", False))


def has_streams(model: Any) -> bool:
    """Are the model's entries vectors of ids, one for each stream?"""
    return hasattr(model.config, "streams")


def stream_sizes(model: Any) -> tuple[int, ...]:
    """Ids of each stream that a model reads and writes."""
    return tuple(model.config.streams) if has_streams(model) else (model.config.vocabulary,)


def stack_width(model: Any) -> int:
    """Channels of the vectors that a model's stack reads."""
    return model.config.body.width if has_streams(model) else model.config.width


def mark(seen: Bool[Array, "B K1 V"], ids: Int[Array, "B T K1"], real: Bool[Array, "B T"]) -> Bool[Array, "B K1 V"]:
    """`seen` with the real ones of these ids."""
    rows, streams = jnp.arange(len(seen))[:, None, None], jnp.arange(seen.shape[1])
    return seen.at[rows, streams, jnp.maximum(ids, 0)].max(real[..., None] & (ids >= 0))


def _moving(step_in: StepIn, state: State) -> Bool[Array, "B"]:
    return step_in.active & ~state.ended


def _begun(state: State) -> Bool[Array, "B"]:
    return (state.last != -1).any(-1)
