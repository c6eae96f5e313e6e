"""The decoding loop: one jitted program from prompts to finished rows."""

import contextlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY, NO_ID, Frames, pytree_dataclass
from slm_jax.generation.advance import Decoding, State, StepIn, StepOut, decoding, has_streams, mark, stream_sizes
from slm_jax.generation.prompts import Prompts, padded_rows, prepared, round_up, row_keys
from slm_jax.generation.rules import Rules
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.positions import last_real
from slm_jax.nn.stack import unstack
from slm_jax.parallel.placement import placed_on
from slm_jax.parallel.rules import ROW_AXES
from slm_jax.parallel.sharding import batch_sharding, row_shards

CAPACITY_BUCKET = 64
"""Cache capacities are rounded up to multiples of this, so that few programs are compiled."""


@pytree_dataclass
class Generated:
    """New tokens of each row, without its prompt; with an axis K1 at the end where the model has several streams.

    `mask` is True up to and with the end token; ids after it are 0. `log_probs` are those of the model itself, before
    temperature and the other rules.
    """

    ids: Int[Array, "B S *K1"]
    mask: Bool[Array, "B S"]
    log_probs: Float[Array, "B S *K1"]


class _Loop(NamedTuple):
    count: jax.Array
    out: Generated
    state: State


def generate(
    model: Any,
    params: Any,
    prompts: Int[Array | np.ndarray, "B L *K1"] | Float[Array | np.ndarray, "B L D"],
    prompt_mask: Bool[Array | np.ndarray, "B L"],
    key: Key[Array, ""] | Key[Array, "B"],
    config: SamplingConfig,
    *,
    forced: Int[Array | np.ndarray, "B S *K1"] | None = None,
    rules: Rules | None = None,
    unconditional: Prompts | None = None,
    context: Frames | None = None,
    mesh: Mesh | None = None,
) -> Generated:
    """Continues every prompt until its end token or `config.max_new` tokens.

    Prompts are ids or vectors of the stack's width, and may have different lengths; padding may stand on either side
    and has no effect: a row's tokens are those it gets alone with the same key. `key` is one key, split over the rows,
    or one key per row. `params` may be all variables, `{"params": ..., "lora": ...}`.

    `forced` ids stand where they are given among the new ones, -1 where the model is free, `EMPTY` where an entry of a
    step of several streams holds nothing (0 in what comes out). `rules` take the place of
    `end`, `ends` and `forbidden`. `unconditional`: with `config.guidance`, the same prompts without the condition and
    their mask. `context`: what a model with cross-attention listens to, for each row. `mesh`: rows are spread over its
    row axes, weights lie as they are.

    Raises `UserError` for an empty prompt, for ids outside the vocabulary and for prompts that leave no room for
    `max_new` tokens.
    """
    guided = config.guidance is not None
    require(guided == (unconditional is not None), "guidance", config.guidance, "goes with prompts without condition")
    ready, mask = prepared(model, (prompts, prompt_mask), unconditional)
    rows, capacity = len(ready) // (2 if guided else 1), capacity_for(model, mask, config.max_new)
    inputs = (
        ready,
        mask,
        row_keys(key, rows),
        None if forced is None else _forced(forced, rows, config.max_new, model),
        None if context is None else for_rows(context, rows, len(ready) // rows),
    )
    if mesh is not None:
        inputs = padded_rows(inputs, rows, row_shards(mesh))
        inputs = jax.device_put(inputs, batch_sharding(mesh))
    made = _generate(decoding(model, config, rules), capacity, mesh, params, *inputs)
    return made if mesh is None else jax.tree.map(lambda x: x[:rows], made)


def capacity_for(model: Any, mask: np.ndarray, new: int) -> int:
    """Entries of a cache for these prompts and so many new tokens; raises `UserError` where the model has no room."""
    longest, limit = int(mask.sum(1).max()), getattr(model.config, "max_positions", None)
    room = limit is None or longest + new <= limit
    require(room, "prompt length + max_new", longest + new, f"this model has {limit} positions")
    capacity = round_up(longest + new, CAPACITY_BUCKET)
    return capacity if limit is None else min(capacity, limit)


def for_rows(context: Frames, rows: int, copies: int = 1) -> Frames:
    """The context of each of `rows` rows, `copies` times; raises `UserError` when there is not one for each."""
    shape = context.values.shape
    require(shape[0] == rows, "context", shape, f"must hold what each of the {rows} rows listens to")
    return context if copies == 1 else jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), context)


def _forced(forced: Any, rows: int, steps: int, model: Any) -> np.ndarray:
    """Forced ids as `[B, max_new, K1]`, -1 behind those given."""
    forced = np.asarray(forced, np.int32)
    forced = forced if has_streams(model) else forced[..., None]
    sizes = stream_sizes(model)
    fits = forced.ndim == 3 and forced.shape[::2] == (rows, len(sizes)) and forced.shape[1] <= steps
    require(fits, "forced", forced.shape, f"at most {steps} steps for each of {rows} rows and {len(sizes)} streams")
    outside = forced[((forced < -1) & ~np.isin(forced, NO_ID)) | (forced >= np.array(sizes))]
    require(outside.size == 0, "forced ids", outside[:5].tolist(), f"-1, {EMPTY} (empty) or within the sizes {sizes}")
    return np.pad(forced, ((0, 0), (0, steps - forced.shape[1]), (0, 0)), constant_values=-1)


@partial(jax.jit, static_argnums=(1, 2))
def _generate(
    steps: Decoding,
    capacity: int,
    mesh: Mesh | None,
    params: Any,
    prompts: Any,
    mask: Any,
    keys: Any,
    forced: Any,
    context: Frames | None = None,
) -> Generated:
    variables = layers_apart(params)  # sliced here, outside the loop: XLA would slice in every step
    rows, everyone = len(keys), jnp.ones(len(keys), bool)
    streams = len(stream_sizes(steps.model))

    def told(count: jax.Array) -> StepIn:
        free = jnp.full((rows, streams), -1, jnp.int32)
        ids = free if forced is None else jax.lax.dynamic_index_in_dim(forced, count, 1, keepdims=False)
        return StepIn(ids, everyone)

    def body(loop: _Loop) -> _Loop:
        step, state = steps.advance(variables, told(loop.count), loop.state, keys)
        return _Loop(loop.count + 1, _recorded(loop.out, loop.count, step), state)

    def unfinished(loop: _Loop) -> jax.Array:
        return (loop.count < steps.config.max_new) & ~loop.state.ended.all()

    with contextlib.nullcontext() if mesh is None else placed_on(mesh):
        logits, state = read_prompts(steps, variables, prompts, mask, capacity, context, mesh)
        step, state = steps.write(variables, logits, told(jnp.int32(0)), state, keys)
        out = _recorded(_blank(rows, steps.config.max_new, streams), jnp.int32(0), step)
        out = jax.lax.while_loop(unfinished, body, _Loop(jnp.int32(1), out, state)).out
    return out if has_streams(steps.model) else Generated(out.ids[..., 0], out.mask, out.log_probs[..., 0])


def layers_apart(params: Any) -> Any:
    """The variables of a model from its `params` or from all of them, with the weights of its layers cut apart."""
    return unstack(params if "params" in params else {"params": params})


def read_prompts(
    steps: Decoding,
    variables: Any,
    prompts: Any,
    mask: Any,
    capacity: int,
    context: Frames | None = None,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, State]:
    """Logits after the last entry of each prompt (`[N, V]` or `[N, K1, V]`, N rows of the model), and the state."""
    state = steps.initial_state(len(prompts) // steps.copies, capacity)
    caches = state.caches if mesh is None else jax.tree.map(partial(_by_rows, mesh), state.caches)
    given, real = prompts[:: steps.copies], mask[:: steps.copies]
    heard = {} if context is None else {"context": context}
    if jnp.issubdtype(prompts.dtype, jnp.floating):
        logits, caches = _read_vectors(steps.model, variables, prompts, caches, mask, heard)
        # of the stream nothing is written yet; 0 only says that the rows have begun
        return logits, State(caches, jnp.zeros_like(state.last), state.written, state.drawn, state.seen, state.ended)
    logits, caches = steps.model.apply(variables, prompts, caches, mask, method="prefill", **heard)
    ids = given if has_streams(steps.model) else given[..., None]
    seen = None if state.seen is None else mark(state.seen, ids, real)
    written = real.sum(1, dtype=jnp.int32)
    return logits, State(caches, ids[:, 0], written, state.drawn, seen, state.ended)


def _read_vectors(
    model: Any, variables: Any, x: Any, caches: Any, mask: Any, heard: dict[str, Frames]
) -> tuple[jax.Array, Any]:
    features, caches = model.apply(variables, x, caches, mask, method="extend", **heard)
    return model.apply(variables, last_real(features, mask), method="head"), caches


def _by_rows(mesh: Mesh, leaf: jax.Array) -> jax.Array:
    """A leaf of the caches with its rows spread; XLA may spread its other axes as the weights ask."""
    free = (PartitionSpec.UNCONSTRAINED,) * (leaf.ndim - 1)
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(ROW_AXES, *free)))


def _recorded(out: Generated, count: jax.Array, step: StepOut) -> Generated:
    wrote = step.ids[:, 0] != -1
    return Generated(
        out.ids.at[:, count].set(jnp.maximum(step.ids, 0)),
        out.mask.at[:, count].set(wrote),
        out.log_probs.at[:, count].set(step.log_probs),
    )


def _blank(rows: int, steps: int, streams: int) -> Generated:
    shape = (rows, steps, streams)
    return Generated(jnp.zeros(shape, jnp.int32), jnp.zeros(shape[:2], bool), jnp.zeros(shape, jnp.float32))
