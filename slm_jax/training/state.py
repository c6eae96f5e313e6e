"""What a training run carries from step to step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from slm_jax.checkpoints.lazy import LazyArray, load_leaf
from slm_jax.core.contracts import Variables
from slm_jax.core.errors import UserError, require
from slm_jax.core.trees import PathPredicate, flatten_by_path, map_by_path
from slm_jax.core.types import pytree_dataclass
from slm_jax.parallel.sharding import replicated, shardings_for, shardings_like, unbox

Initialise = Callable[[jax.Array], dict[str, Any]]
Memory = Callable[[], Any]
"""Makes what the policy for loss spikes remembers at the start."""

PARAMS, COLLECTIONS, EMA, EMA_COLLECTIONS, SPIKES = "params", "collections", "ema", "ema_collections", "spikes"
"""Items of a checkpoint beside `train`."""


@pytree_dataclass
class TrainState:
    """The whole of a run but for the data: `step` (int32 scalar) is the number of steps done.

    `variables` are all collections of the model (`{"params": ..., others}`), `opt` one optimizer state per player,
    `ema` a slow copy of every collection in which a player owns something (None without one), `key` the run's typed
    key, `spikes` what the policy for loss spikes remembers (None without one).
    """

    step: Any
    variables: Any
    opt: dict[str, Any]
    ema: Any
    key: Any
    spikes: Any = None

    @property
    def params(self) -> Any:
        """The collection `params`."""
        return self.variables[PARAMS]

    @property
    def served(self) -> dict[str, Any]:
        """The variables that generation takes: slow copies where they are kept."""
        return {**self.variables, **(self.ema or {})}

    def trees(self) -> dict[str, Any]:
        """The items of a checkpoint: `params` (and `ema`) with the other collections are what generation needs.

        There is no item of `params` where all of them are frozen and kept elsewhere.
        """
        trees = {"train": {"step": self.step, "opt": self.opt, "key": self.key}}
        slow = self.ema or {}
        parts = {PARAMS: self.params or None, COLLECTIONS: _others(self.variables), SPIKES: self.spikes}
        parts |= {EMA: slow.get(PARAMS), EMA_COLLECTIONS: _others(slow)}
        return {**trees, **{name: tree for name, tree in parts.items() if tree is not None}}

    @classmethod
    def from_trees(cls, trees: dict[str, Any]) -> "TrainState":
        """The inverse of `trees`."""
        variables = {PARAMS: trees.get(PARAMS, {}), **trees.get(COLLECTIONS, {})}
        slow = {PARAMS: trees[EMA]} if EMA in trees else {}
        slow |= trees.get(EMA_COLLECTIONS, {})
        return cls(variables=variables, ema=slow or None, spikes=trees.get(SPIKES), **trees["train"])


def check_variables(variables: dict[str, Any]) -> dict[str, Any]:
    """Linen variables as a plain dict; raises `UserError` without `params`."""
    require(PARAMS in variables, "variables", sorted(variables), "initialise must return a dict that holds 'params'")
    return dict(variables)


def _others(variables: dict[str, Any]) -> dict[str, Any] | None:
    return {name: tree for name, tree in variables.items() if name != PARAMS} or None


def slow_part(variables: Variables, owned: PathPredicate | None, of: Any = None) -> Any:
    """The collections of `of` (None: the variables themselves) in which some leaf is `owned`; None without any."""
    if owned is None:
        return None
    names = dict.fromkeys(path.split("/")[0] for path in flatten_by_path(variables) if owned(path))
    return {name: (variables if of is None else of)[name] for name in names} or None


def abstract_state(
    initialise: Initialise,
    optimizer_init: Callable[[Any], dict[str, Any]],
    *,
    ema: PathPredicate | None,
    mesh: Mesh,
    rules: str,
    memory: Memory | None = None,
) -> tuple[TrainState, TrainState]:
    """Shapes and shardings of the state, without computing anything.

    `optimizer_init` maps variables to the optimizer states of all players. `ema`: which leaves are trained, for a
    slow copy of their collections; None keeps none.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    boxed = check_variables(jax.eval_shape(initialise, key))
    places = shardings_for(boxed, mesh, rules)
    variables = unbox(boxed)
    opt = jax.eval_shape(optimizer_init, variables)
    whole = replicated(mesh)
    spikes = None if memory is None else jax.eval_shape(memory)
    shapes = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        variables=variables,
        opt=opt,
        ema=slow_part(variables, ema),
        key=key,
        spikes=spikes,
    )
    placed = jax.tree.unflatten(
        jax.tree.structure(shapes),
        [
            *[whole, *jax.tree.leaves(places)],
            *jax.tree.leaves(shardings_like(opt, variables, places, mesh)),
            *jax.tree.leaves(slow_part(variables, ema, places)),
            *[whole, *[whole for _ in jax.tree.leaves(spikes)]],
        ],
    )
    return shapes, placed


def new_state(
    initialise: Initialise,
    optimizer_init: Callable[[Any], dict[str, Any]],
    *,
    ema: PathPredicate | None,
    key: jax.Array,
    shardings: Any,
    memory: Memory | None = None,
) -> TrainState:
    """The state of step 0, born sharded: no device ever holds more than its part."""

    def build(key: jax.Array) -> TrainState:
        variables = check_variables(unbox(initialise(jax.random.fold_in(key, 0))))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            variables=variables,
            opt=optimizer_init(variables),
            # The slow copy must not share a buffer with the variables: the step donates both.
            ema=jax.tree.map(jnp.copy, slow_part(variables, ema)),
            key=jax.random.fold_in(key, 1),
            spikes=None if memory is None else memory(),
        )

    return jax.jit(build, out_shardings=shardings)(key)


def begun_from(state: TrainState, given: Any, shardings: TrainState) -> TrainState:
    """A new state whose variables, and slow copies, are those of `given` as far as it goes (see `overlay`)."""
    given = by_collection(given, state.variables)
    variables = overlay(state.variables, given, shardings.variables)
    if state.ema is None:
        return dataclasses.replace(state, variables=variables)
    kept = {name: tree for name, tree in given.items() if name in state.ema}
    return dataclasses.replace(state, variables=variables, ema=overlay(state.ema, kept, shardings.ema))


def by_collection(given: Any, variables: Variables) -> dict[str, Any]:
    """`given` with its collections on top; a tree without them is one of `params`."""
    return dict(given) if all(name in variables for name in given) else {PARAMS: given}


def overlay(variables: Variables, given: Any, shardings: Any) -> Any:
    """`variables` with the leaves of `given` (by path, the collection first) put in their place.

    A tree without collections is one of `params`. Leaves are NumPy, JAX or lazy arrays; every device is handed its own
    share of a leaf only. Raises `UserError` for a path that `variables` lacks or a shape that differs.
    """
    values, known = flatten_by_path(by_collection(given, variables)), flatten_by_path(variables)
    for path, value in values.items():
        if path not in known:
            raise UserError(f"start_from has {path!r}, which the model lacks")
        rule = f"must have the model's shape {known[path].shape}"
        require(value.shape == known[path].shape, f"start_from {path!r} shape", value.shape, rule)
    places = flatten_by_path(shardings)

    def choose(path: str, leaf: Any) -> Any:
        return placed_by_shards(values[path], leaf.dtype, places[path]) if path in values else leaf

    return map_by_path(choose, variables)


def placed_by_shards(value: Any, dtype: Any, sharding: Sharding) -> jax.Array:
    """`value` on the devices of `sharding`, cut on the host: none of them ever holds more than its share."""
    if isinstance(value, LazyArray):
        return load_leaf(value, sharding, dtype)
    if isinstance(value, jax.Array) and not value.is_fully_addressable:  # lies on several hosts, sharded already
        return jax.device_put(value.astype(dtype), sharding)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: np.array(value[index], dtype))
