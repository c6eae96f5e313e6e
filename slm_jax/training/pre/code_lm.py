"""p(speech) over the codes of a codec, several books in any order (Borsos et al. 2022; Copet et al. 2023)."""

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.code_rows import CodeRowsConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.evaluation.codes import nats_per_code
from slm_jax.schemes.table import Scheme
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.streams_stage import StreamsStageConfig, names_of, require_order
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.state import TrainState
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage


class CodeLMConfig(StreamsStageConfig):
    """Trains `model` on the codes of stage `tokens`, in stretches of `frames` frames, in the order of `scheme`.

    The same codes, model, loss and decoding go with every scheme, but those whose entries are written in order take a
    model with a depth transformer. `weights`: how much each book counts in the loss; None: all alike. Figures on the
    dev split: `nats_per_code`, over all books and by book, of stretches from the beginning.
    """

    scheme: Scheme
    frames: int = 150

    def __post_init__(self) -> None:
        require_order(self.scheme, self.model)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage, done = token_stage(context, self.tokens), context.finished(self.tokens)
        spec = stage.spec(context)
        rows = self.rows(spec)
        source, dev = (RecordSource(stage.records(done, split)) for split in ("train", "dev"))
        share = host_share(self.train.mesh)
        return Plan(
            *self._learner(spec),
            batches=make_batches(source, rows.make(), self.batches, **share),
            evaluate=self._evaluation(rows, dev, context),
            speech_s=lambda batch: float((batch["ids"] >= 0).sum()) / len(spec.sizes) / spec.frames_per_second,
            meta={TOKENS: spec.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        spec = planned_spec(run, self.tokens)
        rows, batch = self.rows(spec), self.batches.batch
        item = {column: np.zeros(self.frames, np.int32) for column in spec.columns}
        example = rows.make()(item, np.random.default_rng(0))
        return Outline(
            *self._learner(spec),
            batch=stacked_shapes(example, batch),
            tokens=batch * rows.steps,
            speech_s=batch * self.frames / spec.frames_per_second,
        )

    def rows(self, spec: TokenSpec) -> CodeRowsConfig:
        """How codes become a row."""
        return CodeRowsConfig(columns=spec.columns, scheme=self.scheme, frames=self.frames)

    def _learner(self, spec: TokenSpec) -> Learner:
        given, wanted = self.model.streams, spec.sizes
        require(given == wanted, f"{self.name}.model.streams", given, f"stage {self.tokens!r} makes books of {wanted}")
        return self.learner(names_of(spec))

    def _evaluation(self, rows: CodeRowsConfig, dev: RecordSource, context: StageContext) -> Evaluate | None:
        if not len(dev):
            context.say_unmeasured(self.name)
            return None
        model = self.model.make()
        sequences = [rows.sequence(rows.codes(dev[i])[: self.frames]) for i in range(len(dev))]

        def evaluate(state: TrainState, frozen: object) -> dict[str, float]:
            return nats_per_code(model, state.served["params"], sequences, rows.steps)

        return evaluate
