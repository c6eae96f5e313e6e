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
from tests.training.small_run import CONFIG, SeededBatches, plain_objective, player, start

folder, address, processes, index, steps = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
start_hosts(address, processes, index)
assert jax.process_count() == processes


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
