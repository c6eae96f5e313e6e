"""What a training run carries from step to step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from slm_jax.checkpoints.lazy import LazyArray, load_leaf
from slm_jax.core.errors import UserError, require
from slm_jax.core.trees import flatten_by_path, map_by_path
from slm_jax.core.types import pytree_dataclass
from slm_jax.parallel.sharding import replicated, shardings_for, shardings_like, unbox

Initialise = Callable[[jax.Array], dict[str, Any]]
Memory = Callable[[], Any]
"""Makes what the policy for loss spikes remembers at the start."""

SPIKES = "spikes"


@pytree_dataclass
class TrainState:
    """The whole of a run but for the data: `step` (int32 scalar) is the number of steps done.

    `params` is the collection of that name, `mutable` the other collections of the variables (None when there are
    none), `opt` one optimizer state per player, `ema` a slow copy of `params` (or None), `key` the run's typed key,
    `spikes` what the policy for loss spikes remembers (None without one).
    """

    step: Any
    params: Any
    opt: dict[str, Any]
    mutable: Any
    ema: Any
    key: Any
    spikes: Any = None

    def trees(self) -> dict[str, Any]:
        """The items of a checkpoint: `params` (and `ema`) alone are what generation needs."""
        train = {"step": self.step, "opt": self.opt, "mutable": self.mutable, "key": self.key}
        extra = {"ema": self.ema, SPIKES: self.spikes}
        return {"params": self.params, "train": train, **{n: tree for n, tree in extra.items() if tree is not None}}

    @classmethod
    def from_trees(cls, trees: dict[str, Any]) -> "TrainState":
        """The inverse of `trees`."""
        return cls(params=trees["params"], ema=trees.get("ema"), spikes=trees.get(SPIKES), **trees["train"])


def split_variables(variables: dict[str, Any]) -> tuple[Any, Any]:
    """(params, the other collections or None) of Linen variables; raises `UserError` without `params`."""
    require("params" in variables, "variables", sorted(variables), "initialise must return a dict that holds 'params'")
    mutable = {name: tree for name, tree in variables.items() if name != "params"}
    return variables["params"], mutable or None


def abstract_state(
    initialise: Initialise,
    optimizer_init: Callable[[Any], dict[str, Any]],
    *,
    ema: bool,
    mesh: Mesh,
    rules: str,
    memory: Memory | None = None,
) -> tuple[TrainState, TrainState]:
    """Shapes and shardings of the state, without computing anything.

    `optimizer_init` maps params to the optimizer states of all players.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    boxed = jax.eval_shape(initialise, key)
    shardings = shardings_for(boxed, mesh, rules)
    params, mutable = split_variables(unbox(boxed))
    param_shardings, mutable_shardings = split_variables(shardings)
    opt = jax.eval_shape(optimizer_init, params)
    whole = replicated(mesh)
    spikes = None if memory is None else jax.eval_shape(memory)
    shapes = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=params,
        opt=opt,
        mutable=mutable,
        ema=params if ema else None,
        key=key,
        spikes=spikes,
    )
    placed = TrainState.from_trees(
        {
            "params": param_shardings,
            "train": {
                "step": whole,
                "opt": shardings_like(opt, params, param_shardings, mesh),
                "mutable": mutable_shardings,
                "key": whole,
            },
            "ema": param_shardings if ema else None,
            SPIKES: jax.tree.map(lambda _: whole, spikes),
        }
    )
    return shapes, placed


def new_state(
    initialise: Initialise,
    optimizer_init: Callable[[Any], dict[str, Any]],
    *,
    ema: bool,
    key: jax.Array,
    shardings: Any,
    memory: Memory | None = None,
) -> TrainState:
    """The state of step 0, born sharded: no device ever holds more than its part."""

    def build(key: jax.Array) -> TrainState:
        params, mutable = split_variables(unbox(initialise(jax.random.fold_in(key, 0))))
        # The slow copy must not share a buffer with the parameters: the step donates both.
        slow = jax.tree.map(jnp.copy, params) if ema else None
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt=optimizer_init(params),
            mutable=mutable,
            ema=slow,
            key=jax.random.fold_in(key, 1),
            spikes=None if memory is None else memory(),
        )

    return jax.jit(build, out_shardings=shardings)(key)


def overlay(params: Any, given: Any, shardings: Any) -> Any:
    """`params` with the leaves of `given` (by path) put in their place; of lazy ones every device reads its share.

    Raises `UserError` for a path that `params` lacks or a shape that differs.
    """
    values, known = flatten_by_path(given), flatten_by_path(params)
    for path, value in values.items():
        if path not in known:
            raise UserError(f"start_from has {path!r}, which the model lacks")
        rule = f"must have the model's shape {known[path].shape}"
        require(value.shape == known[path].shape, f"start_from {path!r} shape", value.shape, rule)
    places = flatten_by_path(shardings)

    def choose(path: str, leaf: Any) -> Any:
        if isinstance(value := values.get(path), LazyArray):
            return load_leaf(value, places[path], leaf.dtype)
        return leaf if value is None else jax.device_put(jnp.array(value, leaf.dtype), places[path])

    return map_by_path(choose, params)
