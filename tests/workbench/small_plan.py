"""A run with a small language model, whose step the TPU compiler makes in seconds.

As a file it is a config: `python -m slm_jax plan tests/workbench/small_plan.py --topology v5e:2x2`.
"""

from typing import Any

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.training.loop import TrainConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.stages import RunConfig

FSDP = MeshConfig(data=1, fsdp=-1, rules="fsdp")
LAYERS, WIDTH, HIDDEN, VOCABULARY, LENGTH = 2, 128, 256, 512, 128
PER_LAYER = 4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN
"""Weights of a layer's matrices."""
TABLES = 2 * VOCABULARY * WIDTH
"""Weights of the table of tokens and of the head."""


def small_run(batch: int = 8, accumulate: int = 1, mesh: MeshConfig = MeshConfig(), **changes: Any) -> RunConfig:
    """A LLaMA of two layers on rows of 128 units; `changes` are fields of its config."""
    model = llama(
        vocabulary=VOCABULARY, layers=LAYERS, width=WIDTH, heads=1, kv_heads=1, hidden=HIDDEN, unroll=False
    ).replace(**changes)
    lm = UnitLMConfig(
        name="lm",
        units="units",
        model=model,
        row_length=LENGTH,
        train=TrainConfig(steps=10, accumulate=accumulate, mesh=mesh),
        batches=PipelineConfig(batch=batch),
    )
    units = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=500))
    return RunConfig(name="small", corpus=WorldConfig(hours=0.01), stages=(units, lm))


config = small_run()
