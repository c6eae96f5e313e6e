"""Our side of a case of `bench`: weights carried over from the PyTorch side, inputs, a training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.contracts import Batch, Variables
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.families import family_named
from slm_jax.interop.reference_bench import TorchJob
from slm_jax.nn.stack import unstack_on_cpu
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.state import TrainState
from slm_jax.training.step import Player, make_step, optimizer_init
from slm_jax.workbench.activations import in_dtype
from slm_jax.workbench.bench import Arrays

ADAM_TRAFFIC = 9
"""Weights are read forward and backward, gradients written and read, both moments and the weights read and written."""


def carried(job: TorchJob, dtype: str, change: Callable[[Any], Any] = lambda config: config) -> tuple[Any, Any]:
    """Our module and parameters with the weights of a PyTorch job; `change` may alter the config."""
    family = family_named(job.family)
    config = in_dtype(change(family.read_config(job.hub_config)), dtype)
    shapes = {name: value.shape for name, value in job.weights.items()}
    plan = resolve(family.table(config, job.spelling), shapes, family.abstract(config))
    return config.make(), jax.tree.map(jnp.array, import_params(plan, job.weights.__getitem__))


def training_step(player: Player, variables: Variables, batch: Batch, frozen: Any = None) -> Callable[[], Arrays]:
    """The step of `training` with one player, whose state moves on at each call; gives the loss before it."""
    step = players_step((player,), variables, batch, frozen)
    return lambda: {"loss": step()[player.name]}


def players_step(
    players: tuple[Player, ...], variables: Variables, batch: Batch, frozen: Any = None
) -> Callable[[], Arrays]:
    """The same with several, by name; each one's loss is that before its own part of the step."""
    start = optimizer_init(players, 1)(variables)
    state = TrainState(step=jnp.int32(0), variables=variables, opt=start, ema=None, key=jax.random.key(0))
    mesh, names = MeshConfig().make(), tuple(player.name for player in players)
    step, frozen = make_step(players, 1, mesh=mesh), unstack_on_cpu(frozen, mesh)

    def run() -> Arrays:
        nonlocal state
        state, out = step(state, batch, frozen, names)
        pairs = {name: out.sums[f"{name}/loss" if len(names) > 1 else "loss"] for name in names}
        return {name: array_of(total / count) for name, (total, count) in pairs.items()}

    return run


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Noise of a fixed seed."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def array_of(value: jax.Array) -> np.ndarray:
    """Waits for the device."""
    return np.asarray(value, np.float32)
