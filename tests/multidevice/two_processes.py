"""The program behind `test_two_processes.py`: one of several processes that train one model together.

Arguments: folder, address of process 0, number of processes, index of this one, steps.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.hosts import start_hosts
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch, row_parts
from tests.training.small_run import CONFIG, SeededBatches, plain_objective, player, start

folder, address, processes, index, steps = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
start_hosts(address, processes, index)
assert jax.process_count() == processes


def rows_of_mixed_devices() -> None:
    """A mesh that crosses the hosts, as those over TPU slices do: each host still puts its rows where they belong."""
    mixed = sorted(jax.devices(), key=lambda device: (device.id % 2, device.process_index))
    mesh = MeshConfig().make(mixed)
    parts, number = row_parts(mesh)
    assert (parts, number) == ((index, index + processes), 2 * processes)
    values = np.arange(12.0).reshape(12, 1) ** 2
    mine = np.concatenate([np.split(values, number)[part] for part in parts])
    placed = put_batch({"x": mine}, mesh)["x"]
    whole = jax.jit(lambda x: x, out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))(placed)
    np.testing.assert_array_equal(whole, values.astype(np.float32))


rows_of_mixed_devices()


class HostBatches(SeededBatches):
    """Keeps its place under the name of its host, as a sharded source does."""

    def get_state(self):
        return {"hosts": {str(index): self.next}}

    def set_state(self, state):
        assert set(state["hosts"]) == {str(i) for i in range(processes)}
        self.next = state["hosts"][str(index)]


config = CONFIG.replace(steps=steps, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp"))
state = start(
    folder / "run",
    config,
    batches=HostBatches(host=index, hosts=processes),
    players=[player(objective=plain_objective)],
)
whole = jax.jit(lambda tree: tree, out_shardings=jax.sharding.NamedSharding(config.mesh.make(), jax.P()))(state.params)
if index == 0:
    np.savez(folder / "params.npz", **{path: np.asarray(leaf) for path, leaf in flatten_by_path(whole).items()})
