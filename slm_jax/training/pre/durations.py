"""How long each unit lasts: the vocoder's duration predictor, trained on whole utterances."""

import numpy as np

from slm_jax.data.examples.unit_durations import UnitDurationConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise
from slm_jax.objectives.duration import DurationObjective
from slm_jax.training.gradient_stage import (
    GradientStageConfig,
    Learner,
    Outline,
    Plan,
    described,
    host_share,
    trained,
)
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player
from slm_jax.training.token_stage import planned_spec, token_stage


class DurationStageConfig(GradientStageConfig):
    """Trains the duration predictor alone of the vocoder of stage `vocoder`; its artifact is the whole vocoder."""

    vocoder: str
    example: UnitDurationConfig = UnitDurationConfig()

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.vocoder,)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage = UnitVocoderStageConfig.of(context.finished(self.vocoder))
        _, variables = trained(context.finished(self.vocoder))
        tokens = token_stage(context, stage.units)
        source = RecordSource(tokens.records(context.finished(stage.units), "train"))
        example = self.example.replace(units=tokens.spec(context).columns[0])
        return Plan(
            *self._learner(stage.vocoder(context)),
            batches=make_batches(source, example.make(), self.batches, **host_share(self.train.mesh)),
            start_from={"params": {"generator": variables["params"]["generator"]}},
        )

    def outline(self, run: RunConfig) -> Outline:
        stage = described(run, self.vocoder, UnitVocoderStageConfig)
        example = self.example.replace(units=planned_spec(run, stage.units).columns[0])
        some = example.make()({example.units: np.zeros(1, np.int32)}, np.random.default_rng(0))
        tokens = self.batches.batch * self.example.length
        return Outline(
            *self._learner(stage.planned_model(run)),
            batch=stacked_shapes(some, self.batches.batch),
            tokens=tokens,
            speech_s=tokens * stage.model.hop / stage.model.rate_hz,
        )

    def _learner(self, model: UnitVocoderConfig) -> Learner:
        vocoder = model.make()
        objective = DurationObjective(vocoder)
        player = Player(name="durations", objective=objective, owns=objective.owns, optimizer=self.optimizer)
        return lambda key: {"params": {"generator": initialise(vocoder, key)["params"]}}, [player]
