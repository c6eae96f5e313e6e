"""p(hidden spans | the rest): an encoder-decoder trained on the texts of a corpus as T5 is (Raffel et al. 2020)."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.data.examples.span_corruption import SpanCorruptionConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.objectives.sequence_to_sequence import SequenceToSequence
from slm_jax.sequence_models.encoder_decoder import START, EncoderDecoderConfig
from slm_jax.text.marked_tokens import MarkedTokens
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.texts import TextStageConfig, require_rows
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player


class SpanCorruptionStageConfig(TextStageConfig):
    """Trains `model` to write what is hidden of texts of up to `length` tokens; sentinels are the ids after the text's.

    `share` of the tokens is hidden in spans of `mean_span` in the mean. In a share `shuffled` of the rows nothing is:
    the tokens are read in any order and written again. Texts end with `end`; `begin` is not used.
    """

    model: EncoderDecoderConfig
    length: int = 128
    share: float = 0.15
    mean_span: float = 3.0
    shuffled: float = 0.0
    sentinels: int = 32
    objective: NextTokenConfig = NextTokenConfig()

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        tokens = self.made_tokens(folder, context)
        require_rows(self.name, self.model.vocabulary, tokens.size + self.sentinels)
        example = self.example(tokens.size, tokens.special(self.end))
        source = self.texts(folder, context, "train")
        batches = make_batches(source, example.make(tokens.encode), self.batches, **host_share(self.train.mesh))
        evaluate = self._evaluation(example, tokens, folder, context)
        return Plan(*self._learner(), batches=batches, evaluate=evaluate, meta=self.meta(folder, tokens))

    def outline(self, run: RunConfig) -> Outline:
        example, rows = self.example(first_sentinel=0, eos=0), self.batches.batch
        some = example.make(lambda text: [0])({"text": ""}, np.random.default_rng(0))
        tokens = rows * (example.length + example.written)
        return Outline(*self._learner(), batch=stacked_shapes(some, rows), tokens=tokens, speech_s=0.0)

    def model_of(self, folder: StageFolder) -> tuple[EncoderDecoderConfig, str]:
        return self.model, ""

    def planned_model(self, run: RunConfig) -> EncoderDecoderConfig:
        return self.model

    def example(self, first_sentinel: int, eos: int) -> SpanCorruptionConfig:
        """How a text becomes what is read and what is written."""
        return SpanCorruptionConfig(
            length=self.length,
            first_sentinel=first_sentinel,
            eos=eos,
            start=START,
            sentinels=self.sentinels,
            share=self.share,
            mean_span=self.mean_span,
            shuffled=self.shuffled,
        )

    def _learner(self) -> Learner:
        model, ids = self.model.make(), jnp.zeros((1, 2), jnp.int32)
        objective = SequenceToSequence(model, self.objective)
        player = Player(name="encoder_decoder", objective=objective, optimizer=self.optimizer)
        return lambda key: model.init(key, ids, ids), [player]

    def _evaluation(
        self, example: SpanCorruptionConfig, tokens: MarkedTokens, folder: StageFolder, context: StageContext
    ) -> Evaluate | None:
        """Nats per written token, sentinels counted, and of shuffled texts; each time the same is done to each."""
        dev = self.texts(folder, context, "dev")
        kinds = {"nats_per_token": example.replace(shuffled=0.0)}
        if self.shuffled:
            kinds["nats_per_repeated_token"] = example.replace(shuffled=1.0)
        batches = {name: self._batches(kind, tokens, dev) for name, kind in kinds.items()}
        if not len(dev):
            context.say(f"stage {self.name}: the dev split has no texts, so nothing is measured on it while training")
            return None
        objective = SequenceToSequence(self.model.make(), NextTokenConfig())
        loss = jax.jit(lambda variables, batch: objective(variables, batch, None).terms["tokens"])

        def mean(variables: object, rows: list[dict[str, np.ndarray]]) -> float:
            terms = [loss(variables, batch) for batch in rows]
            return float(sum(term.total for term in terms) / sum(term.count for term in terms))

        def evaluate(state: object, frozen: object) -> dict[str, float]:
            return {name: mean(state.served, rows) for name, rows in batches.items()}  # type: ignore[attr-defined]

        return evaluate

    def _batches(self, example: SpanCorruptionConfig, tokens: MarkedTokens, source: RecordSource) -> list[dict]:
        """All texts of a split."""
        make, size = example.make(tokens.encode), self.batches.batch
        rows = [make(source[place], np.random.default_rng(place)) for place in range(len(source))]
        return [_stacked(rows[start : start + size], size) for start in range(0, len(rows), size)]


def _stacked(rows: list[dict[str, np.ndarray]], size: int) -> dict[str, np.ndarray]:
    """A batch of `size` rows; those that are missing have nothing real."""
    blank = {name: np.zeros_like(value) for name, value in rows[0].items()}
    rows = [*rows, *[blank] * (size - len(rows))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
