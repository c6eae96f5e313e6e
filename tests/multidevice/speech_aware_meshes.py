"""The program behind `test_speech_aware_meshes.py`: a stage that learns to answer, on all devices there are.

Arguments: the folder of parts and runs, a name of `MESHES`, and whether features are kept. What is returned: the
trained weights by path.
"""

from pathlib import Path

import numpy as np

from slm_jax.core.trees import flatten_by_path
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from tests.training.small_answers import carry_out, context_of, stage_of

MESHES = {
    "one": MeshConfig(),
    "ddp": MeshConfig(),
    "fsdp": MeshConfig(data=2, fsdp=4, rules="fsdp"),
    "fsdp+tensor": MeshConfig(data=1, fsdp=4, tensor=2, rules="fsdp+tensor"),
}


def main(folder: str, mesh: str, kept: str) -> dict[str, list]:
    stage = stage_of(
        Path(folder) / "parts",
        cache=kept == "kept",
        batches=PipelineConfig(batch=8),
        train=TrainConfig(steps=3, mesh=MESHES[mesh]),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.5, schedule="constant", warmup_steps=0),
    )
    place = carry_out(stage, context_of(Path(folder) / f"{mesh}_{kept}"))
    return {path: np.asarray(leaf).tolist() for path, leaf in flatten_by_path(trained(place)[1]).items()}
