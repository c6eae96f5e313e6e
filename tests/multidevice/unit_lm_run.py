"""The program behind `test_host_counts.py`: the unit LM stage of a run folder, with a record of the batches it read.

`python unit_lm_run.py FOLDER ADDRESS PROCESSES INDEX`. The sequences are packed, and are a weighted mixture of two
kinds of example: units without repetitions and units of every frame.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import Batches, PipelineConfig
from slm_jax.parallel.hosts import start_hosts
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch, row_parts
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre import unit_lm
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage

LM = UnitLMConfig(
    name="lm",
    units="units",
    model=DecoderConfig(vocabulary=24, layers=1, width=16, heads=4, hidden=32, positions="rope", dropout=0.1),
    row_length=32,
    train=TrainConfig(
        steps=8,
        log_every=2,
        checkpoint_every_steps=4,
        checkpoint_every_minutes=None,
        mesh=MeshConfig(fsdp=4, rules="fsdp"),
    ),
    batches=PipelineConfig(batch=8, seed=5),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
    mixture=MixtureConfig(
        parts=(
            PartConfig(name="runs", weight=0.7),
            PartConfig(name="frames", weight=0.3, example=UnitTextConfig(units="units", longest=20)),
        )
    ),
)
KEPT: list[dict[str, np.ndarray]] = []


class Recorded(Batches):
    """Batches that remember what they gave."""

    def __next__(self) -> dict[str, np.ndarray]:
        KEPT.append(super().__next__())
        return KEPT[-1]


def recorded(*args: Any, **kwargs: Any) -> Batches:
    batches = make_batches(*args, **kwargs)
    batches.__class__ = Recorded
    return batches


make_batches = unit_lm.make_batches


def rows_of_mixed_devices(processes: int, index: int) -> None:
    """A mesh that crosses the hosts, as those over TPU slices do: each host still puts its rows where they belong."""
    mesh = MeshConfig().make(sorted(jax.devices(), key=lambda device: (device.id % 2, device.id)))
    parts, number = row_parts(mesh)
    assert (parts, number) == ((index, index + processes), 2 * processes)
    values = np.arange(24.0, dtype=np.float32).reshape(24, 1)
    mine = np.concatenate([np.split(values, number)[part] for part in parts])
    placed = put_batch({"x": mine}, mesh)["x"]
    whole = jax.jit(lambda x: x, out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))(placed)
    np.testing.assert_array_equal(whole, values)


def main(folder: str, address: str = "", processes: str = "1", index: str = "0") -> None:
    if int(processes) > 1:
        start_hosts(address, int(processes), int(index))
    if (int(processes), jax.local_device_count()) == (2, 4):
        rows_of_mixed_devices(int(processes), int(index))
    KEPT.clear()
    unit_lm.make_batches = recorded
    try:
        run_stage(LM, StageContext(RunFolder(folder), WorldConfig(hours=0.01), Path(folder) / "data", progress=False))
    finally:
        unit_lm.make_batches = make_batches
    arrays = {name: np.stack([batch[name] for batch in KEPT]) for name in KEPT[0]}
    np.savez(Path(folder) / f"batches{index}.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
