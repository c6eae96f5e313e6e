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
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.state import TrainState
from slm_jax.training.step import Player, make_step, optimizer_init
from slm_jax.workbench.activations import in_dtype
from slm_jax.workbench.bench import Arrays


def carried(job: TorchJob, dtype: str, change: Callable[[Any], Any] = lambda config: config) -> tuple[Any, Any]:
    """Our module and parameters with the weights of a PyTorch job; `change` may alter the config."""
    family = family_named(job.family)
    config = in_dtype(change(family.read_config(job.hub_config)), dtype)
    shapes = {name: value.shape for name, value in job.weights.items()}
    plan = resolve(family.table(config, job.spelling), shapes, family.abstract(config))
    return config.make(), jax.tree.map(jnp.array, import_params(plan, job.weights.__getitem__))


def training_step(player: Player, variables: Variables, batch: Batch, frozen: Any = None) -> Callable[[], Arrays]:
    """The step of `training` with one player, whose state moves on at each call; gives the loss before it."""
    players = (player,)
    start = optimizer_init(players, 1)(variables)
    state = TrainState(step=jnp.int32(0), variables=variables, opt=start, ema=None, key=jax.random.key(0))
    step = make_step(players, 1, mesh=MeshConfig().make())

    def run() -> Arrays:
        nonlocal state
        state, out = step(state, batch, frozen, (player.name,))
        total, count = out.sums["loss"]
        return {"loss": array_of(total / count)}

    return run


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Noise of a fixed seed."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def array_of(value: jax.Array) -> np.ndarray:
    """Waits for the device."""
    return np.asarray(value, np.float32)
