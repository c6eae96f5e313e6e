"""How long each unit lasts: the vocoder's duration predictor, trained on whole utterances."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slm_jax.data.lengths import bucket_lengths, source_lengths
from slm_jax.data.buckets import BucketConfig
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
    """Takes the vocoder of stage `vocoder` and trains its duration predictor alone; its artifact is the whole vocoder."""

    vocoder: str
    buckets: int = 2

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.vocoder,)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage = UnitVocoderStageConfig.of(context.finished(self.vocoder))
        _, params = trained(context.finished(self.vocoder))
        vocoder = stage.vocoder(context).make()
        objective = DurationObjective(vocoder)
        units = context.finished(stage.units)
        source = RecordSource(FrameUnitsConfig.of(units).records(units, "train"))
        lengths = source_lengths(source, "runs")
        buckets = BucketConfig(lengths=bucket_lengths(lengths, self.buckets, multiple=32), keys=("units", "durations"))
        return Plan(
            initialise=lambda key: {"params": {"generator": initialise(vocoder, key)["params"]}},
            players=[Player(name="durations", objective=objective, owns=objective.owns, optimizer=self.optimizer)],
            batches=make_batches(source, runs(), self.batches, buckets=buckets, lengths=[lengths], **host_share()),
            start_from={"generator": params["generator"]},
        )


def runs() -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
    """A row of the units table as `units` and `durations` of its runs."""

    def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"units": item["runs"].astype(np.int32), "durations": item["durations"].astype(np.int32)}

    return example
