"""A stage with a part from elsewhere: it trains what is added to the weights of a frozen text model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.interop.families import family_for
from slm_jax.nn.stack import unstack
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.run_folder import RunFolder, StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player

TEXT = llama("7b", vocabulary=24, layers=2, width=16, heads=2, kv_heads=1, hidden=24, max_positions=32)
FROZEN = PartSource(path="frozen/lm", source="set by the test", dtype="bfloat16")


class Rows:
    """The same rows of ids at every step."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        ids = np.arange(self.rows * 8, dtype=np.int32).reshape(self.rows, 8) % 24
        kept = {"mask": np.ones_like(ids, bool), "segment": np.ones_like(ids), "position": np.arange(8) + 0 * ids}
        return {"ids": ids, "example": np.arange(self.rows), **kept}

    def close(self) -> None:
        """Nothing is open."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Every batch is the same."""


class DeltaConfig(GradientStageConfig):
    """Trains what is added to the weights of a frozen text model, or the model itself when nothing is frozen."""

    parts: tuple[PartSource, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        return stages_of(self.parts)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self.parts, begun)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        parts = open_parts(self.parts, folder)
        model = parts.configs[self.parts[0].path].make()
        return Plan(*self.learner(model), batches=Rows(self.batches.batch), parts=parts)

    def outline(self, run: RunConfig) -> Outline:
        configs, frozen = outlined(self.parts, run)
        shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in next(Rows(8)).items()}
        learner = self.learner(configs[self.parts[0].path].make())
        return Outline(*learner, batch=shapes, tokens=64, speech_s=1.0, frozen=frozen)

    def learner(self, model: Any) -> Learner:
        inner, frozen = NextTokenConfig().make(model), self.parts[0].frozen

        def objective(first: Any, *rest: Any) -> Any:
            if not frozen:
                return inner(first, *rest)
            bare = "params" not in first
            text = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rest[-1]["frozen"]["lm"])
            whole = jax.tree.map(jnp.add, unstack(first if bare else first["params"]), unstack(text))
            return inner(whole if bare else {"params": whole}, *rest[:-1], None)

        def initialise(key: jax.Array) -> Any:
            return jax.tree.map(lambda x: 0 * x, model.init(key, jnp.zeros((1, 2), jnp.int32)))

        return initialise, [Player(name="delta", objective=objective, optimizer=self.optimizer)]


def text_params(seed: int = 1, config: DecoderConfig = TEXT) -> Any:
    """Drawn weights."""
    draws = np.random.default_rng(seed)
    shapes = family_for(config).abstract(config)
    return jax.tree.map(lambda leaf: 0.1 * draws.standard_normal(leaf.shape, np.float32), shapes)


def delta(
    source: Any, rate: float = 1e-3, mesh: MeshConfig = MeshConfig(), batch: int = 2, **changes: Any
) -> DeltaConfig:
    """The stage; `changes` are fields of its part."""
    return DeltaConfig(
        name="delta",
        parts=(FROZEN.replace(source=str(source), **changes),),
        train=TrainConfig(steps=2, checkpoint_every_steps=1, ema_decay=0.5, mesh=mesh),
        batches=PipelineConfig(batch=batch),
        optimizer=OptimizerConfig(learning_rate=rate),
    )


def carry_out(stage: DeltaConfig, folder: Path, say: Callable[[str], None] = print) -> StageFolder:
    """Run the stage alone, as `run_stages` does; `say` is called when it has been trained."""
    run = RunFolder(folder)
    context = StageContext(run, WorldConfig(hours=0.01), folder / "data", progress=False, say=say)
    place = run.stage(stage.name)
    place.begin(stage, {})
    place.finish(stage.run(place, context))
    return place
