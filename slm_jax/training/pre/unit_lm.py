"""p(speech): next-unit prediction on deduplicated units (GSLM, Lakhotia et al. 2021, section 2.2).

From nothing, or from the body of a text model (TWIST, Hassid et al. 2023).
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import UserError, require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import Batches, make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import packed_shapes
from slm_jax.evaluation.scoring import nats_per_token
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.sequence_models.decoder import Decoder
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.vocabulary import Vocabulary
from slm_jax.training.gradient_stage import (
    CHECKPOINTS,
    GradientStageConfig,
    Learner,
    Outline,
    Plan,
    host_share,
)
from slm_jax.training.loop import Evaluate
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage
from slm_jax.training.warm_start import (
    RECORD,
    Table,
    WarmStart,
    agreed,
    check_source,
    decoder_in,
    has_begun,
    recorded_model,
)


class UnitLMConfig(GradientStageConfig):
    """Trains `model` on the units of stage `units`, packed into rows of `row_length` tokens.

    A sequence is `<s> units </s>`; both ends count as targets where they are predicted.

    `start_from`: a folder with a text model, as a hub lays it out or as `convert` writes it (or `hub:NAME`), whose
    body is the start; its token table is replaced by one for the units, `table` "fresh" or "first_rows" (see
    `training.warm_start`). `model` must then have the shape of the weights, or be None to take it from the folder; its
    own vocabulary, dropout and ways of running count. Once training has a checkpoint the folder is not needed.

    `mixture`: shares of corpora and of kinds of example, None for every sequence once per epoch. The `example` of a
    part is a `UnitTextConfig` that says which column of the units' table it reads (`runs` or `units`) and how long a
    sequence gets; the tokens are filled in.
    """

    units: str
    model: DecoderConfig | None
    row_length: int = 256
    packing_bins: int = 4
    objective: NextTokenConfig = NextTokenConfig()
    start_from: str | None = None
    table: Table = "fresh"
    mixture: MixtureConfig | None = None

    def __post_init__(self) -> None:
        if self.start_from is None:
            require(self.model is not None, "model", None, "it may be left to start_from only, which is None")
        require(self.table in ("fresh", "first_rows"), "table", self.table, "must be fresh or first_rows")

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.units,)

    def check_outside(self, begun: StageFolder | None) -> None:
        if self.start_from is not None and not (begun is not None and has_begun(begun, CHECKPOINTS)):
            check_source(self.start_from, self.model)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage, tokens = token_stage(context, self.units), context.finished(self.units)
        spec = stage.spec(context)
        vocabulary = unit_vocabulary(spec.units)
        warm = self.warm_start(folder, vocabulary)
        config, weights = (self.model, None) if warm is None else warm.begin()
        model = self._model(config, vocabulary)
        text = self.example(vocabulary, sequence_column(spec))
        source, dev = (RecordSource(stage.records(tokens, split)) for split in ("train", "dev"))
        held_out = [text.sequence(dev[i][text.units]) for i in range(len(dev))]
        meta = {
            TOKENS: spec.to_json(),
            "vocabulary": vocabulary.to_json(),
            "vocabulary_hash": vocabulary.content_hash(),
        }
        each_s = seconds_per_token(source, spec)
        return Plan(
            *self._learner(model),
            batches=self._batches(source, text, context),
            evaluate=self._evaluation(model, held_out, context),
            start_from=None if warm is None else warm.params,
            speech_s=lambda batch: float(batch["mask"].sum()) * each_s,
            meta=meta if weights is None else {**meta, "started_from_weights": weights},
        )

    def _evaluation(self, model: Decoder, held_out: list[np.ndarray], context: StageContext) -> Evaluate | None:
        if not held_out:
            context.say_unmeasured(self.name)
            return None
        return lambda state, frozen: {"nats_per_unit": nats_per_token(model, state.served["params"], held_out)}

    def outline(self, run: RunConfig) -> Outline:
        spec = planned_spec(run, self.units)
        vocabulary = unit_vocabulary(spec.units)
        sequence = self.example(vocabulary, sequence_column(spec)).sequence(np.zeros(1, np.int32))
        tokens = self.batches.batch * self.row_length
        return Outline(
            *self._learner(self._model(self.planned_model(run), vocabulary)),
            batch=packed_shapes({"ids": sequence}, self.packing, self.batches.batch),
            tokens=tokens,
            speech_s=tokens / spec.frames_per_second,
        )

    def _batches(self, table: RecordSource, text: UnitTextConfig, context: StageContext) -> Batches:
        sources, kinds = table, [text]
        if self.mixture is not None:
            sources = self.mixture.sources(table, context.places("train"))
            kinds = [self._kind(part, text) for part in self.mixture.parts]
        share = host_share(self.train.mesh)
        return make_batches(sources, [kind.make() for kind in kinds], self.batches, packing=self.packing, **share)

    def _kind(self, part: PartConfig, text: UnitTextConfig) -> UnitTextConfig:
        if part.example is None:
            return text
        if not isinstance(part.example, UnitTextConfig):
            kind = type(part.example).__name__
            raise UserError(f"example of part {part.name!r} is a {kind}: a UnitTextConfig is needed here")
        longest = min(part.example.longest or self.row_length, self.row_length)
        return text.replace(units=part.example.units, longest=longest)

    def _model(self, config: DecoderConfig, vocabulary: Vocabulary) -> Decoder:
        require(
            config.vocabulary >= vocabulary.size,
            f"{self.name}.model.vocabulary",
            config.vocabulary,
            f"stage {self.units!r} needs {vocabulary.describe()}",
        )
        return config.make()

    def _learner(self, model: Decoder) -> Learner:
        player = Player(name="lm", objective=self.objective.make(model), optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32)), [player]

    @property
    def packing(self) -> PackingConfig:
        """How sequences share a row."""
        return PackingConfig(length=self.row_length, bins=self.packing_bins)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        made = super().run(folder, context)
        return made if self.start_from is None else [*made, RECORD]

    def warm_start(self, folder: StageFolder, vocabulary: Vocabulary) -> WarmStart | None:
        """Where the parameters come from; None when they are drawn."""
        if self.start_from is None:
            return None
        rows = vocabulary.padded_size(8) if self.model is None else self.model.vocabulary
        return WarmStart(self.start_from, self.model, rows, self.table, self.train.seed, folder)

    def decoder(self, folder: StageFolder) -> DecoderConfig:
        """The model of a stage that is done."""
        return self.model if self.start_from is None else recorded_model(folder)

    def model_of(self, folder: StageFolder) -> tuple[DecoderConfig, str]:
        return self.decoder(folder), ""

    def planned_model(self, run: RunConfig) -> DecoderConfig:
        if self.model is not None:
            return self.model
        vocabulary = unit_vocabulary(planned_spec(run, self.units).units)
        return agreed(decoder_in(self.start_from), None, vocabulary.padded_size(8), self.start_from)

    def example(self, vocabulary: Vocabulary, column: str = "runs") -> UnitTextConfig:
        """How a row of the units' table becomes a sequence; `column`: where they are."""
        first, _ = vocabulary.bounds("units")
        ends = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id}
        return UnitTextConfig(units=column, first_unit=first, longest=self.row_length, **ends)


def sequence_column(spec: TokenSpec) -> str:
    """The column that a one-stream model reads: units without repetitions where there are any, otherwise all."""
    return (spec.columns if spec.runs is None else spec.runs)[0]


def seconds_per_token(source: RecordSource, spec: TokenSpec) -> float:
    """Speech (seconds) that one token stands for in the mean of a table, both ends of sequences counted."""
    tokens = source.lengths(sequence_column(spec)).sum() + 2 * len(source)
    return float(source.lengths(spec.columns[0]).sum() / spec.frames_per_second / tokens)


def unit_vocabulary(units: int) -> Vocabulary:
    """`<pad>`, `<s>`, `</s>` and the units after them."""
    return Vocabulary(ranges=(("units", units),))
