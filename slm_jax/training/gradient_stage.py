"""Stages that train by gradient: a plan of models, players and batches, carried out by the one loop."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.core.contracts import BatchIterator
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.training.loop import Evaluate, TrainConfig, train
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageConfig, StageContext
from slm_jax.training.state import Initialise
from slm_jax.training.step import Player

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `training.loop.train` needs besides its settings."""

    initialise: Initialise
    players: Sequence[Player]
    batches: BatchIterator
    evaluate: Evaluate | None = None
    frozen: Any = None
    start_from: Any = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What must agree when the stage resumes, such as the vocabulary."""


class GradientStageConfig(StageConfig):
    """A stage whose parameters are trained; the newest checkpoint is its artifact."""

    train: TrainConfig
    batches: PipelineConfig
    optimizer: OptimizerConfig = OptimizerConfig()

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        """Model, players and batches of this stage."""
        raise TypeError(f"{type(self).__name__} has no plan")

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        stage = self.shortened() if context.dry_run else self
        plan = stage.plan(folder, context)
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
                meta=meta,
                progress=context.progress,
            )
        finally:
            plan.batches.close()
        checkpoints = Checkpoints(folder.path / CHECKPOINTS)
        return [str(checkpoints.path(stage.train.steps).relative_to(folder.path.absolute()))]

    def shortened(self) -> "GradientStageConfig":
        """The same stage with one step, for a dry run."""
        once = self.train.replace(steps=1, evaluate_every=None)
        return self.replace(train=once, optimizer=without_warmup(self.optimizer))


def without_warmup(optimizer: OptimizerConfig) -> OptimizerConfig:
    """`optimizer` for a run that is shorter than its warm-up."""
    return optimizer.replace(warmup_steps=0)


def host_share() -> dict[str, int]:
    """Which part of every batch this process reads, as arguments of `data.pipeline.make_batches`."""
    return {"host": jax.process_index(), "hosts": jax.process_count()}


def trained(folder: StageFolder) -> tuple[StageConfig, Any]:
    """Config and parameters of a finished stage; the slow copy (EMA) where it keeps one."""
    config = GradientStageConfig.of(folder)
    item = "params" if config.train.ema_decay is None else "ema"
    return config, restore_params(folder.path / CHECKPOINTS, item=item).trees[item]
