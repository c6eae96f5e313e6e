"""The decoding loop: one jitted program from prompts to finished rows."""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from slm_jax.core.errors import require
from slm_jax.core.types import pytree_dataclass
from slm_jax.generation.sampling import SamplingConfig, draw, shape_logits
from slm_jax.nn.stack import unstack

PROMPT_BUCKET, CAPACITY_BUCKET = 32, 64
"""Prompt lengths and cache capacities are rounded up to multiples of these, so that few programs are compiled."""


class StepModel(Protocol):
    """What the loop asks of a model: three methods reached through `apply`, and hashable fields."""

    def initial_state(self, batch: int, capacity: int, dtype: Any = None) -> Any: ...
    def prefill(self, ids: Any, state: Any, mask: Any) -> tuple[Any, Any]: ...
    def step(self, ids: Any, state: Any, mask: Any) -> tuple[Any, Any]: ...


@pytree_dataclass
class Generated:
    """New tokens of each row, without its prompt.

    `mask` is True up to and with the end token; ids after it are 0. `log_probs` are those of the model itself, before
    temperature and the other rules.
    """

    ids: Int[Array, "B S"]
    mask: Bool[Array, "B S"]
    log_probs: Float[Array, "B S"]


class _Loop(NamedTuple):
    count: jax.Array
    token: jax.Array
    done: jax.Array
    seen: jax.Array | None
    out: Generated
    state: Any


def generate(
    model: Any,
    params: Any,
    prompts: Int[Array | np.ndarray, "B L"],
    prompt_mask: Bool[Array | np.ndarray, "B L"],
    key: Key[Array, ""] | Key[Array, "B"],
    config: SamplingConfig,
) -> Generated:
    """Continues every prompt until its end token or `config.max_new` tokens.

    Prompts may have different lengths; padding may stand on either side and has no effect: a row's tokens are those
    it gets alone with the same key. `key` is one key, split over the rows, or one key per row. Raises `UserError`
    for an empty prompt, for ids outside the vocabulary and for prompts that leave no room for `max_new` tokens.
    """
    prompts, prompt_mask = _packed(prompts, prompt_mask)
    longest = int(prompt_mask.sum(1).max())
    vocabulary = model.config.vocabulary
    outside = prompts[(prompts < 0) | (prompts >= vocabulary)]
    require(outside.size == 0, "prompt ids", outside[:5].tolist(), f"must lie in [0, {vocabulary})")
    end = config.end
    require(end is None or 0 <= end < vocabulary, "end", end, f"must lie in [0, {vocabulary})")
    limit = getattr(model.config, "max_positions", None)
    room = limit is None or longest + config.max_new <= limit
    require(room, "prompt length + max_new", longest + config.max_new, f"this model has {limit} positions")
    capacity = _round_up(longest + config.max_new, CAPACITY_BUCKET)
    capacity = capacity if limit is None else min(capacity, limit)
    keys = key if key.ndim == 1 else jax.random.split(key, len(prompts))
    require(len(keys) == len(prompts), "keys", len(keys), f"must be one, or one for each of the {len(prompts)} prompts")
    return _generate(model, config, capacity, params, prompts, prompt_mask, keys)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _generate(
    model: Any, config: SamplingConfig, capacity: int, params: Any, prompts: Any, mask: Any, keys: Any
) -> Generated:
    variables = {"params": unstack(params)}  # sliced here, outside the loop: XLA would slice in every step

    def choose(logits: jax.Array, seen: jax.Array | None, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        row_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, count)
        token = draw(shape_logits(logits, seen, count, config), row_keys, config)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        return token, jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]

    def advance(loop: _Loop, logits: jax.Array, state: Any) -> _Loop:
        """Draws the token after `logits` and writes it, for the rows that are not done."""
        token, log_prob = choose(logits, loop.seen, loop.count)
        token = jnp.where(loop.done, 0, token)
        out = Generated(
            loop.out.ids.at[:, loop.count].set(token),
            loop.out.mask.at[:, loop.count].set(~loop.done),
            loop.out.log_probs.at[:, loop.count].set(jnp.where(loop.done, 0.0, log_prob)),
        )
        seen = None if loop.seen is None else loop.seen.at[jnp.arange(len(token)), token].max(~loop.done)
        done = loop.done if config.end is None else loop.done | (token == config.end)
        return _Loop(loop.count + 1, token, done, seen, out, state)

    def body(loop: _Loop) -> _Loop:
        logits, state = model.apply(variables, loop.token[:, None], loop.state, ~loop.done[:, None], method="step")
        return advance(loop, logits[:, 0], state)

    def unfinished(loop: _Loop) -> jax.Array:
        return (loop.count < config.max_new) & ~loop.done.all()

    state = model.initial_state(len(prompts), capacity)
    logits, state = model.apply(variables, prompts, state, mask, method="prefill")
    seen = _seen(prompts, mask, logits.shape[-1]) if config.repetition_penalty != 1.0 else None
    start = _Loop(jnp.int32(0), prompts[:, 0], jnp.zeros(len(prompts), bool), seen, _blank(len(prompts), config), None)
    return jax.lax.while_loop(unfinished, body, advance(start, logits, state)).out


def _packed(prompts: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prompts moved to the left of a bucket-sized array, zeros after them."""
    prompts, mask = np.asarray(prompts), np.asarray(mask, bool)
    require(prompts.ndim == 2 and prompts.shape == mask.shape, "prompts", prompts.shape, "must be [B, L] as their mask")
    lengths = mask.sum(1)
    require(bool(np.all(lengths > 0)), "prompt lengths", lengths.tolist(), "every prompt needs at least one token")
    packed = np.zeros((len(prompts), _round_up(int(lengths.max()), PROMPT_BUCKET)), np.int32)
    packed_mask = np.arange(packed.shape[1]) < lengths[:, None]
    packed[packed_mask] = prompts[mask]
    return packed, packed_mask


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _blank(batch: int, config: SamplingConfig) -> Generated:
    shape = (batch, config.max_new)
    return Generated(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))


def _seen(ids: jax.Array, mask: jax.Array, vocabulary: int) -> jax.Array:
    rows = jnp.arange(len(ids))[:, None]
    return jnp.zeros((len(ids), vocabulary), bool).at[rows, ids].max(mask)
