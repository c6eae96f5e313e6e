"""p(units, durations, pitch): next runs of units with what goes beside them (pGSLM, Kharitonov et al. 2021)."""

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.run_rows import SPECIALS, RunRowsConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.evaluation.codes import nats_per_code
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.streams_stage import StreamsStageConfig, names_of
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.state import TrainState
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage


class ProsodicLMConfig(StreamsStageConfig):
    """Trains `model` on the runs of stage `tokens`, a stream for each of its codebooks, the units first.

    Streams beside the units stand `shift` steps later, so that they are predicted given their unit. Streams of real
    numbers need a grid in the model. `weights`: how much each stream counts in the loss; None: all alike. `hidden`,
    `hidden_runs`, `stretch`: what is a target and not read, see `RunRowsConfig`. A row is `length` runs long. Figures
    on the dev split: nats by stream, `NAME_nats`.
    """

    model: MultiStreamConfig
    length: int = 256
    shift: int = 1
    hidden: tuple[float, ...] = ()
    hidden_runs: tuple[float, ...] = ()
    stretch: int = 5

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage, done = token_stage(context, self.tokens), context.finished(self.tokens)
        spec = stage.spec(context)
        rows = self.rows(spec)
        source, dev = (RecordSource(stage.records(done, split)) for split in ("train", "dev"))
        each_s = seconds_per_run(source, spec)
        return Plan(
            *self._learner(spec),
            batches=make_batches(source, rows.make(), self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(spec, dev, context),
            speech_s=lambda batch: float(batch["mask"].sum()) * each_s,
            meta={TOKENS: spec.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        spec = planned_spec(run, self.tokens)
        rows, batch = self.rows(spec), self.batches.batch
        item = {column: np.ones(1) for column in rows.columns}
        return Outline(
            *self._learner(spec),
            batch=stacked_shapes(rows.make()(item, np.random.default_rng(0)), batch),
            tokens=batch * self.length,
            speech_s=batch * self.length / spec.frames_per_second,
        )

    def rows(self, spec: TokenSpec) -> RunRowsConfig:
        """How runs become a row; raises `UserError` for tokens without runs and for a model of other streams."""
        require(spec.runs is not None, "tokens", self.tokens, "this stage keeps no runs of units")
        assert spec.runs is not None  # for the type checker
        self._require_streams(spec)
        return RunRowsConfig(
            columns=spec.runs,
            units=spec.sizes[0],
            length=self.length,
            grids=self.model.grids,
            shift=self.shift,
            hidden=self.hidden,
            hidden_runs=self.hidden_runs,
            stretch=self.stretch,
        )

    def _require_streams(self, spec: TokenSpec) -> None:
        given, books = self.model.streams, spec.codebooks
        rule = f"stage {self.tokens!r} makes {spec.describe()}"
        require(len(given) == len(books), f"{self.name}.model.streams", given, rule)
        least = (books[0].size + len(SPECIALS), *(book.size for book in books[1:]))
        fits = all(size >= wanted for size, wanted in zip(given, least, strict=True))
        require(fits, f"{self.name}.model.streams", given, f"{rule}; the units have {len(SPECIALS)} special ids more")
        real = tuple(not book.is_discrete for book in books)
        found = tuple(self.model.grid(k) is not None for k in range(len(books)))
        require(found == real, f"{self.name}.model.grids", found, f"{rule}; real numbers, and they alone, need a grid")

    def _learner(self, spec: TokenSpec) -> Learner:
        self._require_streams(spec)
        return self.learner(names_of(spec))

    def _evaluation(self, spec: TokenSpec, dev: RecordSource, context: StageContext) -> Evaluate | None:
        if not len(dev):
            context.say_unmeasured(self.name)
            return None
        rows, model = self.rows(spec), self.model.make()
        sequences = [rows.sequence(rows.entries(dev[i]))[: self.length] for i in range(len(dev))]

        def evaluate(state: TrainState, frozen: object) -> dict[str, float]:
            found = nats_per_code(model, state.served["params"], sequences, self.length)
            return {f"{name}_nats": found[f"nats_per_code_{k}"] for k, name in enumerate(names_of(spec))}

        return evaluate


def seconds_per_run(source: RecordSource, spec: TokenSpec) -> float:
    """Speech (seconds) that a run stands for in the mean of a table, both ends of rows counted."""
    assert spec.runs is not None  # for the type checker
    runs = source.lengths(spec.runs[0]).sum() + 2 * len(source)
    return float(source.lengths(spec.columns[0]).sum() / spec.frames_per_second / runs)
