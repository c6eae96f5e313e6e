"""Training steps of any players on any arrangement of devices, for the programs that compare arrangements."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch
from slm_jax.training.state import TrainState, abstract_state, new_state
from slm_jax.training.step import Player, StepOutput, make_step, optimizer_init


def take_steps(
    initialise: Callable[[jax.Array], Any],
    players: Sequence[Player],
    batches: Sequence[dict[str, np.ndarray]],
    place: MeshConfig,
    devices: list[Any],
    accumulate: int = 1,
) -> tuple[TrainState, list[StepOutput]]:
    """The state after one step of all players on each batch, and what each step told."""
    mesh, names = place.make(devices), tuple(player.name for player in players)
    opt = optimizer_init(players, len(batches))
    _, shardings = abstract_state(initialise, opt, ema=None, mesh=mesh, rules=place.rules)
    state = new_state(initialise, opt, ema=None, key=jax.random.key(0), shardings=shardings)
    step = make_step(players, len(batches), mesh=mesh, shardings=shardings, accumulate=accumulate)
    outputs = []
    for batch in batches:
        state, out = step(state, put_batch(batch, mesh), None, names)
        outputs.append(out)
    return state, outputs


def shards(state: TrainState) -> dict[str, list[int]]:
    """Shapes of the parts of each weight that the first device holds."""
    return {path: list(leaf.addressable_shards[0].data.shape) for path, leaf in flatten_by_path(state.params).items()}
