"""The program behind `test_training_step.py`: steps on one and on eight devices."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch, unbox
from slm_jax.training.state import abstract_state, begun_from, new_state
from slm_jax.training.step import everything, make_step, optimizer_init
from tests.training.cut_run import taken
from tests.training.small_run import CONFIG as RUN
from tests.training.small_run import OPTIMIZER, SeededBatches, initialise, objective, plain_objective, player, start

STEPS, ROWS = 4, 32


def batches() -> list[dict[str, np.ndarray]]:
    source = SeededBatches(rows=ROWS)
    return [next(source) for _ in range(STEPS)]


def trained(config: MeshConfig, devices: list, loss: Any, accumulate: int = 1) -> tuple[dict[str, Any], Any]:
    """Parameters after the steps, and the state they are from."""
    players, mesh = [player(objective=loss)], config.make(devices)
    opt = optimizer_init(players, STEPS)
    _, shardings = abstract_state(initialise, opt, ema=everything, mesh=mesh, rules=config.rules)
    state = new_state(initialise, opt, ema=everything, key=jax.random.key(0), shardings=shardings)
    step = make_step(players, STEPS, mesh=mesh, accumulate=accumulate, ema_decay=0.5, shardings=shardings)
    for batch in batches():
        state, _ = step(state, put_batch(batch, mesh), None, ("net",))
    return as_lists(state.params), state


def as_lists(tree: Any) -> dict[str, Any]:
    return {path: np.asarray(leaf).tolist() for path, leaf in flatten_by_path(tree).items()}


def by_pmap() -> dict[str, Any]:
    """The same training written with `jax.pmap` and nothing of this package's step."""
    optimizer = OPTIMIZER.make(STEPS)
    variables = unbox(initialise(jax.random.fold_in(jax.random.key(0), 0)))
    params, averages = variables["params"], {"averages": variables["averages"]}

    def step(params: Any, opt: Any, batch: Any) -> tuple[Any, Any]:
        def total(params: Any) -> Any:
            term = plain_objective({"params": params, **averages}, batch, jax.random.key(0)).terms["square"]
            return term.total, term.count

        grads, count = jax.grad(total, has_aux=True)(params)
        grads = jax.tree.map(lambda g: g / jax.lax.psum(count, "devices"), jax.lax.psum(grads, "devices"))
        updates, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt

    several = jax.pmap(step, axis_name="devices")
    copies = jax.tree.map(lambda x: jnp.stack([x] * 8), (params, optimizer.init(params)))
    for batch in batches():
        cut = {name: value.reshape(8, ROWS // 8, *value.shape[1:]) for name, value in batch.items()}
        copies = several(*copies, cut)
    return as_lists(jax.tree.map(lambda x: x[0], copies[0]))


def resumed_elsewhere(folder: Path) -> dict[str, Any]:
    """A run under fsdp, and one that goes on under ddp from the middle of it."""
    ddp, fsdp = RUN.replace(steps=10), RUN.replace(steps=10, mesh=MeshConfig(data=2, fsdp=4, rules="fsdp"))
    whole = start(folder / "moved", fsdp)
    kept = Checkpoints(folder / "moved" / "checkpoints")
    newest = kept.path(10)
    newest.rename(newest.with_name("set-aside"))
    moved = start(folder / "moved", ddp)
    return {"moved": as_lists(moved.params), "whole": as_lists(whole.params)}


def given_by_shards() -> dict[str, Any]:
    """The largest slice of a given leaf that is asked for at once, and what each device then holds."""
    mesh = MeshConfig(data=1, fsdp=8, rules="fsdp").make()
    opt = optimizer_init([player()], STEPS)
    _, shardings = abstract_state(initialise, opt, ema=everything, mesh=mesh, rules="fsdp")
    state = new_state(initialise, opt, ema=everything, key=jax.random.key(0), shardings=shardings)
    given = Watched(np.arange(8 * 16, dtype=np.float64).reshape(8, 16))
    state = begun_from(state, {"first": {"kernel": given}}, shardings)
    kernels = state.params["first"]["kernel"], state.ema["params"]["first"]["kernel"]
    held = [list(shard.data.shape) for kernel in kernels for shard in kernel.addressable_shards]
    same = all(np.array_equal(kernel, given.values) for kernel in kernels)
    return {"largest": max(given.asked), "held": held, "same": same}


class Watched:
    """An array that remembers how much of it was asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.asked = values, values.shape, [0]

    def __getitem__(self, index: Any) -> np.ndarray:
        self.asked.append(self.values[index].size)
        return self.values[index]


def main(folder: str) -> dict[str, Any]:
    devices = jax.devices()
    ddp, fsdp = MeshConfig(), MeshConfig(data=2, fsdp=4, rules="fsdp")
    results: dict[str, Any] = {}
    results["one"], _ = trained(ddp, devices[:1], objective)
    results["ddp"], spread = trained(ddp, devices, objective)
    results["fsdp"], state = trained(fsdp, devices, objective)
    results["plain_one"], _ = trained(ddp, devices[:1], plain_objective)
    results["plain_ddp"], _ = trained(ddp, devices, plain_objective)
    results["plain_fsdp_accumulated"], _ = trained(fsdp, devices, plain_objective, accumulate=2)
    results["pmap"] = by_pmap()
    for name, parts, some in (("cut_one", 1, devices[:1]), *((f"cut_{parts}", parts, devices) for parts in (1, 2, 4))):
        results[name] = {path: value.tolist() for path, value in taken(some, parts).items()}
    results["given"] = given_by_shards()
    kernels = {
        "params": state.params,
        "mu": state.opt["net"][1].mu["params"],
        "ema": state.ema["params"],
        "ddp": spread.params,
    }
    results["shards"] = {n: list(t["first"]["kernel"].addressable_shards[0].data.shape) for n, t in kernels.items()}
    results.update(resumed_elsewhere(Path(folder)))
    return results
