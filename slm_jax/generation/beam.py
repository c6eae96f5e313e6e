"""Beam search in one jitted loop: the rules of `transformers`, caches reordered by a gather."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames, pytree_dataclass
from slm_jax.generation.advance import Decoding, decoding, has_streams
from slm_jax.generation.decode import capacity_for, for_rows, generate, layers_apart, read_prompts
from slm_jax.generation.prompts import prepared
from slm_jax.generation.rules import Rules
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.caches import ContextCache

NEVER_BEST = -1e9
"""A score that no sequence has."""


class BeamConfig(Config):
    """How many sequences are followed and how finished ones are weighed.

    A sequence of n new tokens scores (ln p + n `token_bonus`) / n ** `length_penalty`: ESPnet has the bonus, which it
    calls `penalty`, and no division (`length_penalty` 0). `early_stopping` True: a row is done once it has
    `beams` finished sequences; False: once its best open one, at its present length, scores below the worst finished
    one; "never": once no open one can score better at any length. One beam is greedy decoding.
    """

    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    token_bonus: float = 0.0

    def __post_init__(self) -> None:
        require(self.beams >= 1, "beams", self.beams, "must be at least 1")
        known = isinstance(self.early_stopping, bool) or self.early_stopping == "never"
        require(known, "early_stopping", self.early_stopping, 'must be True, False or "never"')


@pytree_dataclass
class Beams:
    """R finished sequences of each row, best first, without the prompt.

    `mask` is True up to and with the end token; all False where a row finished fewer than R. `scores`: those that
    `BeamConfig` says.
    """

    ids: Int[Array, "B R S"]
    mask: Bool[Array, "B R S"]
    scores: Float[Array, "B R"]


class _Set(NamedTuple):
    """Sequences of each row side by side, open or finished: ids [B, R, S], lengths and scores [B, R]."""

    ids: jax.Array
    lengths: jax.Array
    scores: jax.Array
    finished: jax.Array

    def taken(self, places: jax.Array) -> "_Set":
        """Those at `places` [B, n] of each row."""
        return _Set(*(_take(field, places) for field in self))


class _Loop(NamedTuple):
    new: jax.Array  # tokens of every open sequence
    open: _Set
    done: _Set
    hopeful: jax.Array  # [B]: may an open sequence still be among the best?
    caches: Any


def beam_search(
    model: Any,
    params: Any,
    prompts: Int[Array | np.ndarray, "B L"] | Float[Array | np.ndarray, "B L D"],
    prompt_mask: Bool[Array | np.ndarray, "B L"],
    config: SamplingConfig,
    beams: BeamConfig,
    *,
    rules: Rules | None = None,
    context: Frames | None = None,
) -> Beams:
    """The likeliest continuations of every prompt, of at most `config.max_new` tokens.

    Of `config` count `max_new`, `min_new`, `end`, `ends` and `forbidden`; `rules` take the place of the last three.
    `context`: what a model with cross-attention listens to; the beams of a row share it.
    Raises `UserError` for a repetition penalty, guidance or several streams, and for prompts as `generate` does.
    """
    require(config.repetition_penalty == 1.0, "repetition_penalty", config.repetition_penalty, "not with beams")
    require(config.guidance is None, "guidance", config.guidance, "not with beams")
    require(not has_streams(model), "model", type(model).__name__, "beams follow one stream")
    if beams.beams == 1:
        key, greedy = jax.random.key(0), config.replace(temperature=0.0)
        made = generate(model, params, prompts, prompt_mask, key, greedy, rules=rules, context=context)
        count = made.mask.sum(1)
        scores = (made.log_probs.sum(1) + count * beams.token_bonus) / count**beams.length_penalty
        return Beams(made.ids[:, None], made.mask[:, None], scores[:, None])
    ready, mask = prepared(model, (prompts, prompt_mask))
    capacity = capacity_for(model, mask, config.max_new)
    context = None if context is None else for_rows(context, len(ready))
    return _search(decoding(model, config, rules), beams, capacity, params, ready, mask, context)


@partial(jax.jit, static_argnums=(1, 2))
def _search(
    steps: Decoding,
    beams: BeamConfig,
    capacity: int,
    params: Any,
    prompts: Any,
    mask: Any,
    context: Frames | None = None,
) -> Beams:
    variables, width = layers_apart(params), beams.beams
    logits, state = read_prompts(steps, variables, prompts, mask, capacity, context)
    loop = _Loop(
        new=jnp.int32(0),
        open=_empty(len(prompts), width, steps.config.max_new, jnp.where(jnp.arange(width) == 0, 0.0, NEVER_BEST)),
        done=_empty(len(prompts), width, steps.config.max_new, jnp.full(width, NEVER_BEST)),
        hopeful=jnp.ones(len(prompts), bool),
        caches=_of_beams(lambda leaf: jnp.repeat(leaf, width, axis=0), state.caches),
    )
    grow = partial(_grown, steps, beams, state.written)
    loop, _ = grow(loop, jnp.repeat(logits, width, axis=0))  # all beams are equal yet: nothing to reorder

    def body(loop: _Loop) -> _Loop:
        last = jax.lax.dynamic_index_in_dim(loop.open.ids, loop.new - 1, 2).reshape(-1, 1)
        real = jnp.ones(last.shape, bool)
        logits, caches = steps.model.apply(variables, last, loop.caches, real, method="step")
        loop, parents = grow(loop._replace(caches=caches), logits[:, 0])
        rows = (jnp.arange(len(parents))[:, None] * width + parents).reshape(-1)
        return loop._replace(caches=_of_beams(lambda leaf: leaf[rows], loop.caches))

    def unfinished(loop: _Loop) -> jax.Array:
        full = loop.done.finished.all() if beams.early_stopping is True else jnp.bool_(False)
        return (loop.new < steps.config.max_new) & loop.hopeful.any() & ~full

    done = jax.lax.while_loop(unfinished, body, loop).done
    real = jnp.arange(done.ids.shape[2]) < done.lengths[..., None]
    return Beams(jnp.where(real, done.ids, 0), real, done.scores)


def _grown(
    steps: Decoding, beams: BeamConfig, prompt_lengths: jax.Array, loop: _Loop, logits: jax.Array
) -> tuple[_Loop, jax.Array]:
    """One token more: the new open sequences, which of the old ones each grew from [B, R], and those that ended."""
    max_new, count = steps.config.max_new, loop.new
    candidates, parents, tokens = _candidates(steps, beams, prompt_lengths, loop, logits)
    ends = steps.rules.are_ends(tokens.reshape(-1)).reshape(tokens.shape)
    stops = ends | (count + 1 >= max_new)
    going = candidates._replace(scores=candidates.scores + jnp.where(stops, NEVER_BEST, 0.0))
    _, places = jax.lax.top_k(going.scores, beams.beams)
    done = _finished(beams, loop, candidates, stops)
    grown = going.taken(places)
    hopeful = loop.hopeful & _may_improve(beams, max_new, count + 1, grown, done)
    return _Loop(count + 1, grown, done, hopeful, loop.caches), _take(parents, places)


def _candidates(
    steps: Decoding, beams: BeamConfig, prompt_lengths: jax.Array, loop: _Loop, logits: jax.Array
) -> tuple[_Set, jax.Array, jax.Array]:
    """The best continuations of each row, so many that `beams` of them are open, their parents and last tokens."""
    rows, width = loop.open.scores.shape
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1).reshape(rows, width, -1)
    vocabulary = log_probs.shape[-1]
    legal = steps.rules.now(prompt_lengths + loop.new, loop.new[None])
    if legal is not None:
        log_probs = jnp.where(legal, log_probs, -jnp.inf)
    if steps.config.min_new > 0:
        late = loop.new >= steps.config.min_new
        log_probs = jnp.where(late | steps.rules.without_ends(vocabulary), log_probs, -jnp.inf)
    total = (log_probs + beams.token_bonus + loop.open.scores[..., None]).reshape(rows, -1)
    kept = min(max(2, 1 + len(steps.rules.ends)) * width, total.shape[1])
    scores, chosen = jax.lax.top_k(total, kept)
    parents, tokens = chosen // vocabulary, chosen % vocabulary
    grown = loop.open.taken(parents)
    ids = jax.lax.dynamic_update_index_in_dim(grown.ids, tokens.astype(jnp.int32), loop.new, 2)
    return _Set(ids, grown.lengths + 1, scores, grown.finished), parents, tokens


def _finished(beams: BeamConfig, loop: _Loop, candidates: _Set, stops: jax.Array) -> _Set:
    """The best finished sequences so far; only the `beams` best candidates count among them."""
    ended = stops & (jnp.arange(stops.shape[1]) < beams.beams)
    closed = ~loop.hopeful
    if beams.early_stopping is True:
        closed = closed | loop.done.finished.all(-1)
    scores = candidates.scores / (loop.new + 1) ** beams.length_penalty
    scores = scores + jnp.where(closed, NEVER_BEST, 0.0)[:, None] + jnp.where(ended, 0.0, NEVER_BEST)
    new = candidates._replace(scores=scores, finished=ended, lengths=jnp.where(ended, candidates.lengths, 0))
    both = _Set(*(jnp.concatenate(pair, axis=1) for pair in zip(loop.done, new, strict=True)))
    return both.taken(jax.lax.top_k(both.scores, beams.beams)[1])


def _may_improve(beams: BeamConfig, max_new: int, count: jax.Array, grown: _Set, done: _Set) -> jax.Array:
    """[B]: whether the best open sequence, at the length that suits it, scores above a finished or missing one."""
    never, now = beams.early_stopping == "never", count.astype(jnp.float32)
    length = jnp.float32(max_new) if never and beams.length_penalty > 0 else now
    to_come = max(0.0, beams.token_bonus) * (max_new - now) if never else 0.0
    best = (grown.scores[:, :1] + to_come) / length**beams.length_penalty
    worst = jnp.where(done.finished, done.scores.min(1, keepdims=True), NEVER_BEST)
    return (best > worst).any(1)


def _of_beams(function: Callable[[jax.Array], jax.Array], caches: Any) -> Any:
    """`function` over what each beam keeps of its own; what they listen to is one for all beams of a row."""

    def over(node: Any) -> Any:
        return node if isinstance(node, ContextCache) else function(node)

    return jax.tree.map(over, caches, is_leaf=lambda node: isinstance(node, ContextCache))


def _empty(rows: int, width: int, steps: int, scores: jax.Array) -> _Set:
    shape = (rows, width)
    ids = jnp.zeros((*shape, steps), jnp.int32)
    return _Set(ids, jnp.zeros(shape, jnp.int32), jnp.broadcast_to(scores, shape), jnp.zeros(shape, bool))


def _take(field: jax.Array, places: jax.Array) -> jax.Array:
    """`field` [B, n, ...] at `places` [B, m]."""
    return jnp.take_along_axis(field, places.reshape(*places.shape, *[1] * (field.ndim - 2)), axis=1)
