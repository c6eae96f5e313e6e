"""The program behind `test_parts.py`: a large part over eight devices, and training around a small one.

`memory` and `training` read the model folders `hub` and `ours` in the folder that they are given.
"""

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.checkpoints.lazy import load_leaf, load_part
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import count_bytes, flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for, unbox
from slm_jax.training.parts import load_frozen, open_part
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig
from slm_jax.workbench.plan_memory import held_bytes
from slm_jax.workbench.plan_program import make_program
from tests.training.small_parts import carry_out, delta

MESH = MeshConfig(data=1, fsdp=8, rules="fsdp")
KEPT: list[Any] = []
"""Keeps what was loaded: the room that it would give back would hide what the next way takes."""


class Watch:
    """The most memory of its own (bytes, without pages of mapped files) that the process had inside the block."""

    def __enter__(self) -> "Watch":
        self.over, self.before = threading.Event(), own_bytes()
        self.most = self.before
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def grown(self) -> int:
        return self.most - self.before

    def _look(self) -> None:
        while not self.over.is_set():
            self.most = max(self.most, own_bytes())
            time.sleep(0.002)


def own_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def shares(tree: Any) -> dict[str, Any]:
    """Path -> (shape, bytes, what each device holds of it)."""
    return {
        path: [list(leaf.shape), leaf.nbytes, [shard.data.nbytes for shard in leaf.addressable_shards]]
        for path, leaf in flatten_by_path(tree).items()
    }


def large(folder: str, run: RunFolder, most: int) -> dict[str, Any]:
    """What a part takes while it is loaded, and where it lies then."""
    part = open_part(PartSource(path="frozen/lm", source=folder, dtype="bfloat16"), run)
    places = shardings_for(part.params, MESH.make(), "fsdp")
    with Watch() as watch:
        found = jax.tree.map(partial(load_leaf, most=most), unbox(part.params), places)
    KEPT.append(found)
    return {"grown": watch.grown, "bytes": count_bytes(found), "shares": shares(found)}


def checksum(tree: Any) -> float:
    return sum(float(jnp.abs(leaf.astype(jnp.float32)).mean()) for leaf in jax.tree.leaves(tree))


def whole(folder: str, run: RunFolder) -> dict[str, Any]:
    """The way that is not taken: all on the host first."""
    part = open_part(PartSource(path="frozen/lm", source=folder), run)
    with Watch() as watch:
        arrays = jax.tree.map(np.asarray, unbox(part.params))
    return {"grown": watch.grown, "bytes": count_bytes(arrays)}


def memory(folder: str) -> dict[str, Any]:
    """What each way of loading takes."""
    run = RunFolder(Path(folder) / "run")
    load_part({"warm": np.ones(8)}, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    ways = {
        "by share": large(f"{folder}/hub", run, 2**40),
        "by layer": large(f"{folder}/hub", run, 2**20),
        "stored": large(f"{folder}/ours", run, 2**20),
    }
    ways["whole"] = whole(f"{folder}/hub", run)
    return {"ways": ways, "sums": list(map(checksum, KEPT))}


def narrow_arrays() -> list[jax.Array]:
    return [array for array in jax.live_arrays() if array.dtype == jnp.bfloat16]


def training(folder: str) -> dict[str, Any]:
    """What the devices hold of a frozen part while training runs around it, and what a plan says."""
    run, others = RunFolder(Path(folder) / "run"), narrow_arrays()
    stage = delta(Path(folder) / "hub", mesh=MESH, batch=8)
    program = make_program(stage, RunConfig(name="run", corpus=WorldConfig(hours=0.01), stages=(stage,)), jax.devices())
    held: dict[str, Any] = {}

    def look(text: str) -> None:
        """The frozen part is all that has come of bfloat16."""
        new = [array for array in narrow_arrays() if all(array is not other for other in others)]
        held.update(shares({str(place): array for place, array in enumerate(new)}))

    carry_out(stage, run.path, look)
    served = load_frozen(run, "delta", MESH.make(), "fsdp")["frozen"]["lm"]
    return {"trained": held, "served": shares(served), "planned": held_bytes(program.frozen)}
