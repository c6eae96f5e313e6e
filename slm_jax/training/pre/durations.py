"""How long each unit lasts: the vocoder's duration predictor, trained on whole utterances."""

from slm_jax.data.examples.unit_durations import UnitDurationConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.decoders.unit_vocoder import initialise
from slm_jax.objectives.duration import DurationObjective
from slm_jax.training.gradient_stage import GradientStageConfig, Plan, host_share, trained
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageContext
from slm_jax.training.step import Player


class DurationStageConfig(GradientStageConfig):
    """Trains the duration predictor alone of the vocoder of stage `vocoder`; its artifact is the whole vocoder."""

    vocoder: str
    example: UnitDurationConfig = UnitDurationConfig()

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.vocoder,)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage = UnitVocoderStageConfig.of(context.finished(self.vocoder))
        _, params = trained(context.finished(self.vocoder))
        vocoder = stage.vocoder(context).make()
        objective = DurationObjective(vocoder)
        source = RecordSource(FrameUnitsConfig.records(context.finished(stage.units), "train"))
        return Plan(
            initialise=lambda key: {"params": {"generator": initialise(vocoder, key)["params"]}},
            players=[Player(name="durations", objective=objective, owns=objective.owns, optimizer=self.optimizer)],
            batches=make_batches(source, self.example.make(), self.batches, **host_share()),
            start_from={"generator": params["generator"]},
        )
