"""Stages that train by gradient: a plan of models, players and batches, carried out by the one loop."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from slm_jax.checkpoints.manager import Checkpoints, restore_items
from slm_jax.core.config import Config
from slm_jax.core.contracts import BatchIterator
from slm_jax.core.errors import UserError
from slm_jax.core.paths import Place, absolute
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.shapes import Shapes
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import row_parts
from slm_jax.training.loop import Evaluate, SpeechSeconds, TrainConfig, train
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.part_record import Parts
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageConfig, StageContext
from slm_jax.training.state import COLLECTIONS, EMA, EMA_COLLECTIONS, PARAMS, Initialise
from slm_jax.training.step import Player

CHECKPOINTS = "checkpoints"
Learner = tuple[Initialise, list[Player]]
"""What a plan and an outline of one stage share."""
S = TypeVar("S", bound=StageConfig)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `training.loop.train` needs besides its settings."""

    initialise: Initialise
    players: Sequence[Player]
    batches: BatchIterator
    evaluate: Evaluate | None = None
    frozen: Any = None
    start_from: Any = None
    speech_s: SpeechSeconds | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What must agree when the stage resumes, such as the vocabulary."""
    parts: Parts | None = None
    """Parts from elsewhere: frozen ones join `frozen`, the others are where training starts."""

    def with_parts(self) -> "Plan":
        """The plan with its parts handed on."""
        if self.parts is None:
            return self
        frozen, start = self.parts.handed_on(self.frozen, self.start_from)
        return dataclasses.replace(self, frozen=frozen, start_from=start, meta={**self.parts.meta, **self.meta})


@dataclasses.dataclass(frozen=True)
class Outline:
    """As much of a plan as the config tells: who learns on which shapes. Neither data nor weights are read for it.

    `batch`: every array of a batch over all hosts. `tokens`: positions of a batch that the model looks at (frames,
    units). `speech_s`: seconds of speech in a batch; where units stand without their repetitions it counts one frame
    for each and is a lower bound.
    """

    initialise: Initialise
    players: Sequence[Player]
    batch: Shapes
    tokens: int
    speech_s: float
    frozen: Any = None
    """Shapes, boxed where they have logical axes (see `training.parts.outlined`)."""


class GradientStageConfig(StageConfig):
    """A stage whose parameters are trained; the newest checkpoint is its artifact."""

    train: TrainConfig
    batches: PipelineConfig
    optimizer: OptimizerConfig = OptimizerConfig()

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        """Model, players and batches of this stage."""
        raise TypeError(f"{type(self).__name__} has no plan")

    def outline(self, run: RunConfig) -> Outline:
        """What the training step of this stage is made of, for compiling it where the run's data are not.

        What earlier stages of `run` would have found (statistics, speakers) is as their configs and this one say.
        """
        raise TypeError(f"{type(self).__name__} has no outline")

    def model_of(self, folder: StageFolder) -> tuple[Config, str]:
        """Config of what the finished stage in `folder` trained for use elsewhere (a decoder, an encoder, a vocoder).

        With it the name of its part of the parameters, "" where it is all of them. Raises `UserError` where the stage
        trains nothing of the kind.
        """
        raise UserError(f"stage {self.name!r} is a {type(self).__name__}: it has no decoder, encoder or vocoder")

    def planned_model(self, run: RunConfig) -> Config:
        """The same config before the stage is done; raises `UserError` where configs do not tell."""
        raise UserError(f"stage {self.name!r} is a {type(self).__name__}: its config is known when it is trained")

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        stage = self.shortened() if context.dry_run else self
        plan = stage.plan(folder, context).with_parts()
        meta = {"inputs": folder.begun()["consumed"], **plan.meta}
        try:
            train(
                folder.path,
                stage.train,
                initialise=plan.initialise,
                players=plan.players,
                batches=plan.batches,
                evaluate=plan.evaluate,
                frozen=plan.frozen,
                start_from=plan.start_from,
                speech_s=plan.speech_s,
                meta=meta,
                progress=context.progress,
                say=context.say,
            )
        finally:
            plan.batches.close()
        checkpoints = Checkpoints(folder.path / CHECKPOINTS)
        made = [str(checkpoints.path(stage.train.steps).relative_to(absolute(folder.path)))]
        return made if plan.parts is None else [*made, *plan.parts.artifacts]

    def shortened(self) -> "GradientStageConfig":
        """The same stage with one step, for a dry run."""
        once = self.train.replace(steps=1, evaluate_every=None)
        return self.replace(train=once, optimizer=without_warmup(self.optimizer))


def described(run: RunConfig, name: str, kind: type[S]) -> S:
    """The config of stage `name` of a run; raises `UserError` when it is of another kind."""
    stage = run.stage(name)
    if not isinstance(stage, kind):
        raise UserError(f"stage {name!r} is a {type(stage).__name__}: a {kind.__name__} is needed here")
    return stage


def without_warmup(optimizer: OptimizerConfig) -> OptimizerConfig:
    """`optimizer` for a run that is shorter than its warm-up."""
    return optimizer.replace(warmup_steps=0)


def host_share(mesh: MeshConfig) -> dict[str, Any]:
    """Which parts of every batch this process reads, as arguments of `data.pipeline.make_batches`.

    Hosts that share rows, as those along a tensor axis do, read the same parts.
    """
    host, hosts = row_parts(mesh.make())
    return {"host": host, "hosts": hosts}


def trained(folder: StageFolder) -> tuple[GradientStageConfig, dict[str, Any]]:
    """Config and variables of a finished stage, all collections; the slow copies (EMA) where it keeps them."""
    config = GradientStageConfig.of(folder)
    return config, restored_variables(folder.path / CHECKPOINTS, slow=config.train.ema_decay is not None)


def restored_variables(checkpoints: Place, slow: bool) -> dict[str, Any]:
    """Variables in the newest checkpoint of a folder; with `slow`, where there are slow copies, those."""

    def wanted(held: list[str]) -> list[str]:
        bare, others = (EMA if slow and EMA in held else PARAMS), [COLLECTIONS, *([EMA_COLLECTIONS] if slow else [])]
        return [name for name in (bare, *others) if name in held]

    found = restore_items(checkpoints, wanted).trees
    params = found[EMA] if EMA in found else found.get(PARAMS, {})
    return {PARAMS: params, **found.get(COLLECTIONS, {}), **found.get(EMA_COLLECTIONS, {})}
