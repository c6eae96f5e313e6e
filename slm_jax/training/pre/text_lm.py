"""p(text): a decoder trained on the texts of a corpus, for systems whose text model cannot be had from elsewhere."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import packed_shapes
from slm_jax.evaluation.scoring import nats_per_token
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.marked_tokens import MarkedTokens
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.texts import TextStageConfig, require_rows
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player


class TextLMConfig(TextStageConfig):
    """Trains `model` on texts between `begin` and `end`, packed into rows of `row_length` tokens."""

    model: DecoderConfig
    row_length: int = 256
    packing_bins: int = 4
    objective: NextTokenConfig = NextTokenConfig()

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        tokens = self.made_tokens(folder, context)
        require_rows(self.name, self.model.vocabulary, tokens.size)
        source, example = self.texts(folder, context, "train"), self.example(tokens)
        batches = make_batches(source, example, self.batches, packing=self.packing, **host_share(self.train.mesh))
        evaluate = self._evaluation(example, folder, context)
        return Plan(*self._learner(), batches=batches, evaluate=evaluate, meta=self.meta(folder, tokens))

    def outline(self, run: RunConfig) -> Outline:
        rows = self.batches.batch
        shapes = packed_shapes({"ids": np.zeros(1, np.int32)}, self.packing, rows)
        return Outline(*self._learner(), batch=shapes, tokens=rows * self.row_length, speech_s=0.0)

    def model_of(self, folder: StageFolder) -> tuple[DecoderConfig, str]:
        return self.model, ""

    def planned_model(self, run: RunConfig) -> DecoderConfig:
        return self.model

    def example(self, tokens: MarkedTokens) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `text` to `ids` `[S]`; a text that is longer than a row is cut to a window."""
        ends = {"bos": tokens.special(self.begin), "eos": tokens.special(self.end)}
        row = UnitTextConfig(units="ids", longest=self.row_length, **ends).make()
        return lambda item, rng: row({"ids": np.asarray(tokens.encode(item["text"]), np.int32)}, rng)

    @property
    def packing(self) -> PackingConfig:
        """How texts share a row."""
        return PackingConfig(length=self.row_length, bins=self.packing_bins)

    def _learner(self) -> Learner:
        model = self.model.make()
        player = Player(name="lm", objective=self.objective.make(model), optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32)), [player]

    def _evaluation(self, example: Callable, folder: StageFolder, context: StageContext) -> Evaluate | None:
        dev = self.texts(folder, context, "dev")
        rows = [example(dev[place], np.random.default_rng(place))["ids"] for place in range(len(dev))]
        if not rows:
            context.say(f"stage {self.name}: the dev split has no texts, so nothing is measured on it while training")
            return None
        model = self.model.make()
        return lambda state, frozen: {"nats_per_token": nats_per_token(model, state.served["params"], rows)}
