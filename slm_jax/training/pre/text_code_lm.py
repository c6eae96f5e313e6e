"""p(text, speech) over a codec's codes and what is said in them, in any layout and any scheme."""

from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.text_code_rows import TextCodeRowsConfig
from slm_jax.data.joined import Joined
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.data.word_times import words_of
from slm_jax.evaluation.codes import nats_of_text_and_codes
from slm_jax.layouts.layout import Layout
from slm_jax.schemes.table import Scheme
from slm_jax.text.tokenizers import ByteTokenizerConfig, spelling_hash
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.streams_stage import StreamsStageConfig, names_of, require_order
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.state import TrainState
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage


class TextCodeLMConfig(StreamsStageConfig):
    """Trains `model` on the codes of stage `tokens` and the words of the corpus, whose times it has to know.

    The same codes, texts, loss and figures go with every `layout` and every `scheme`; a scheme that writes the entries
    of a step in order takes a model with a depth transformer. `text_tokens` makes ids of words; stream 0 of the model
    has two ids more, for the marks of layouts. Rows are stretches of `frames` frames with up to `text` text ids;
    `padding`: how much an entry without text counts. `weights`: of the text and of every book in the loss; None: all
    alike. Figures on the dev split: nats per text id, per mark and per code, of stretches from the beginning.
    """

    scheme: Scheme
    layout: Layout
    text_tokens: Config = ByteTokenizerConfig()
    frames: int = 150
    text: int = 64
    padding: float = 0.5

    def __post_init__(self) -> None:
        require_order(self.scheme, self.model)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage, done = token_stage(context, self.tokens), context.finished(self.tokens)
        spec = stage.spec(context)
        rows = self.rows(spec)
        source, dev = (
            Joined(context.source(split), RecordSource(stage.records(done, split))) for split in ("train", "dev")
        )
        timed = len(source) > 0 and words_of(source[0]) is not None
        require(timed, "corpus", type(context.corpus).__name__, "must know when its words are said")
        share = host_share(self.train.mesh)
        return Plan(
            *self._learner(spec, rows),
            batches=make_batches(source, rows.make(), self.batches, **share),
            evaluate=self._evaluation(rows, dev, context),
            speech_s=lambda batch: float((batch["ids"][..., 1:] >= 0).sum()) / len(spec.sizes) / spec.frames_per_second,
            meta={TOKENS: spec.to_json(), "text_ids": rows.tokenizer.size, "spelling": spelling_hash(rows.tokenizer)},
        )

    def outline(self, run: RunConfig) -> Outline:
        spec = planned_spec(run, self.tokens)
        rows, batch = self.rows(spec), self.batches.batch
        item: dict[str, Any] = {"id": "", "words": [], "word_start_s": [], "word_end_s": []}
        item |= {column: np.zeros(self.frames, np.int32) for column in spec.columns}
        return Outline(
            *self._learner(spec, rows),
            batch=stacked_shapes(rows.make()(item, np.random.default_rng(0)), batch),
            tokens=batch * rows.steps,
            speech_s=batch * self.frames / spec.frames_per_second,
        )

    def rows(self, spec: TokenSpec) -> TextCodeRowsConfig:
        """How text and codes become a row."""
        return TextCodeRowsConfig(
            columns=spec.columns,
            scheme=self.scheme,
            layout=self.layout,
            tokens=self.text_tokens,
            frames=self.frames,
            frames_per_second=spec.frames_per_second,
            text=self.text,
            padding=self.padding,
        )

    def _learner(self, spec: TokenSpec, rows: TextCodeRowsConfig) -> Learner:
        given, wanted = self.model.streams, (rows.size, *spec.sizes)
        rule = f"{rows.size} ids of text and marks, and stage {self.tokens!r} makes books of {spec.sizes}"
        require(given == wanted, f"{self.name}.model.streams", given, rule)
        return self.learner(("text", *names_of(spec)))

    def _evaluation(self, rows: TextCodeRowsConfig, dev: Joined, context: StageContext) -> Evaluate | None:
        if not len(dev):
            context.say_unmeasured(self.name)
            return None
        model, size = self.model.make(), rows.tokenizer.size
        made = [rows.from_start(dev[i], np.random.default_rng(i)) for i in range(len(dev))]

        def evaluate(state: TrainState, frozen: object) -> dict[str, float]:
            return nats_of_text_and_codes(model, state.served["params"], made, rows.steps, size)

        return evaluate
