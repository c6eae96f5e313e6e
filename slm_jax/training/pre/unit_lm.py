"""p(speech): next-unit prediction on deduplicated units (GSLM, Lakhotia et al. 2021, section 2.2)."""

import jax.numpy as jnp

from slm_jax.core.errors import require
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.scoring import nats_per_token
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.vocabulary import Vocabulary
from slm_jax.training.gradient_stage import GradientStageConfig, Plan, host_share
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageContext
from slm_jax.training.step import Player


class UnitLMConfig(GradientStageConfig):
    """Trains `model` on the units of stage `units`, packed into rows of `row_length` tokens.

    A sequence is `<s> units </s>`; both ends count as targets where they are predicted.
    """

    units: str
    model: DecoderConfig
    row_length: int = 256
    packing_bins: int = 4
    objective: NextTokenConfig = NextTokenConfig()

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.units,)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        units = FrameUnitsConfig.of(context.finished(self.units))
        vocabulary = unit_vocabulary(units.clusters)
        require(
            self.model.vocabulary >= vocabulary.size,
            f"{self.name}.model.vocabulary",
            self.model.vocabulary,
            f"stage {self.units!r} needs {vocabulary.describe()}",
        )
        model = self.model.make()
        text = self.example(vocabulary)
        source = RecordSource(units.records(context.finished(self.units), "train"))
        dev = RecordSource(units.records(context.finished(self.units), "dev"))
        held_out = [text.sequence(dev[i]["runs"]) for i in range(len(dev))]
        packing = PackingConfig(length=self.row_length, bins=self.packing_bins)
        return Plan(
            initialise=lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32)),
            players=[Player(name="lm", objective=self.objective.make(model), optimizer=self.optimizer)],
            batches=make_batches(source, text.make(), self.batches, packing=packing, **host_share()),
            evaluate=lambda state: {"nats_per_unit": nats_per_token(model, state.params, held_out)},
            meta={"vocabulary": vocabulary.to_json(), "vocabulary_hash": vocabulary.content_hash()},
        )

    def example(self, vocabulary: Vocabulary) -> UnitTextConfig:
        """How a row of the units table becomes a sequence."""
        first, _ = vocabulary.bounds("units")
        ends = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id}
        return UnitTextConfig(units="runs", first_unit=first, longest=self.row_length, **ends)


def unit_vocabulary(units: int) -> Vocabulary:
    """`<pad>`, `<s>`, `</s>` and the units after them."""
    return Vocabulary(ranges=(("units", units),))
