"""One model of a cascade over units and codes: semantic, coarse or fine (AudioLM, Borsos et al. 2022)."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.cascade_rows import CascadeRowsConfig
from slm_jax.data.joined import Joined
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.evaluation.cascade import nats_by_book
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.schemes.cascade import Cascade, audiolm
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share, trained
from slm_jax.training.loop import Evaluate
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.state import TrainState
from slm_jax.training.step import Player
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage


class CascadeTokensConfig(Config):
    """Which stages make the `units` and the `codes`, and how the passes share the codes.

    The first `coarse` books are written given the units; the others given these, in chunks of `chunk_s` seconds.
    """

    units: str = "units"
    codes: str = "codes"
    coarse: int = 4
    chunk_s: float = 3.0

    @property
    def stages(self) -> tuple[str, str]:
        """Their names."""
        return self.units, self.codes

    def planned(self, run: RunConfig) -> Cascade:
        """The cascade as far as the configs of a run tell."""
        return self._cascade(planned_spec(run, self.units), planned_spec(run, self.codes))

    def found(self, context: StageContext) -> Cascade:
        """The cascade over what the finished stages made."""
        semantic, acoustic = (token_stage(context, name).spec(context) for name in self.stages)
        return self._cascade(semantic, acoustic)

    def tables(self, context: StageContext, split: str) -> Joined:
        """Units and codes of a split, row by row."""
        places = (token_stage(context, name).records(context.finished(name), split) for name in self.stages)
        return Joined(*map(RecordSource, places))

    def _cascade(self, semantic: TokenSpec, acoustic: TokenSpec) -> Cascade:
        return audiolm(semantic, acoustic, self.coarse, self.chunk_s)


class CascadeLMConfig(GradientStageConfig):
    """Trains `model` as pass `number` of a cascade (0 units, 1 coarse codes, 2 fine ones) on stretches of `longest_s`.

    Targets are what the pass writes. `start_from`: an earlier stage with the same model, such as one on shorter
    stretches, where codes find their units far sooner. Figures on the dev split, of stretches from the beginning: nats
    by book, `NAME_nats`, each given all that stands before it.
    """

    tokens: CascadeTokensConfig
    number: int
    model: DecoderConfig
    longest_s: float = 3.0
    objective: NextTokenConfig = NextTokenConfig()
    start_from: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.tokens.stages, *(() if self.start_from is None else (self.start_from,)))

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        cascade = self.tokens.found(context)
        rows, source = self.rows(cascade), self.tokens.tables(context, "train")
        vocabulary = cascade.vocabulary(self.number)
        meta = {
            TOKENS: [cascade.semantic.to_json(), cascade.acoustic.to_json()],
            "vocabulary": vocabulary.to_json(),
            "vocabulary_hash": vocabulary.content_hash(),
        }
        each_s = self.longest_s / rows.longest
        return Plan(
            *self._learner(cascade),
            batches=make_batches(source, rows.make(), self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(rows, context),
            start_from=None if self.start_from is None else trained(context.finished(self.start_from))[1],
            speech_s=lambda batch: float(batch["mask"].sum()) * each_s,
            meta=meta,
        )

    def outline(self, run: RunConfig) -> Outline:
        cascade, batch = self.tokens.planned(run), self.batches.batch
        rows = self.rows(cascade)
        item = {column: np.zeros(1, np.int32) for column in cascade.semantic.columns}
        item |= {column: np.zeros(cascade.frames_per_unit, np.int32) for column in cascade.acoustic.columns}
        return Outline(
            *self._learner(cascade),
            batch=stacked_shapes(rows.make()(item, np.random.default_rng(0)), batch),
            tokens=batch * rows.longest,
            speech_s=batch * self.longest_s,
        )

    def rows(self, cascade: Cascade) -> CascadeRowsConfig:
        """How a stretch of speech becomes a row."""
        units = self.longest_s * cascade.semantic.frames_per_second
        frames = max(1, round(units)) * cascade.frames_per_unit
        return CascadeRowsConfig(cascade=cascade, number=self.number, frames=frames)

    def model_of(self, folder: StageFolder) -> tuple[DecoderConfig, str]:
        return self.model, ""

    def planned_model(self, run: RunConfig) -> DecoderConfig:
        return self.model

    def _learner(self, cascade: Cascade) -> Learner:
        vocabulary, size = cascade.vocabulary(self.number), self.model.vocabulary
        rule = f"stages {' and '.join(self.tokens.stages)} need {vocabulary.describe()}"
        require(size >= vocabulary.size, f"{self.name}.model.vocabulary", size, rule)
        model = self.model.make()
        player = Player(name="lm", objective=self.objective.make(model), optimizer=self.optimizer)

        def initialise(key: jax.Array) -> dict:
            return model.init(key, jnp.zeros((1, 2), jnp.int32))

        return initialise, [player]

    def _evaluation(self, rows: CascadeRowsConfig, context: StageContext) -> Evaluate | None:
        dev = self.tokens.tables(context, "dev")
        if not len(dev):
            context.say_unmeasured(self.name)
            return None
        model, books = self.model.make(), [rows.stretch(dev[i]) for i in range(len(dev))]

        def evaluate(state: TrainState, frozen: object) -> dict[str, float]:
            nats = nats_by_book(rows.cascade, self.number, model, state.served["params"], books)
            return {f"{name}_nats": value for name, value in nats.items()}

        return evaluate
