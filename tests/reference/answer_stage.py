"""A stage that trains an adapter and LoRA between a frozen encoder of an earlier stage and a frozen LM of a folder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.core.config import Config
from slm_jax.core.messages import Turn
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.trees import matching
from slm_jax.core.types import Frames
from slm_jax.data.joined import Subset
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import stacked_shapes
from slm_jax.nn.lora import LoRAConfig, lora_initialise, with_lora
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player
from tests.reference.answerer import Answerer, AnswerExample, AnswerObjective

ENCODER, LM = "frozen/encoder", "frozen/lm"
KINDS = ("instruction",)


class AnswerStageConfig(GradientStageConfig):
    """`parts`: the frozen encoder and LM. Items beyond `clip` samples or `length` entries are left out, and counted."""

    parts: tuple[PartSource, ...]
    adapter: LinearAdapterConfig
    lora: LoRAConfig
    clip: int
    length: int
    alignment: float = 0.1

    @property
    def needs(self) -> tuple[str, ...]:
        return stages_of(self.parts)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self.parts, begun)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        parts = open_parts(self.parts, folder)
        answerer = self.answerer(parts.configs)
        example = AnswerExample(answerer, self.clip, self.length)
        source = self._fitting(context, example, "train")
        return Plan(
            *self._learner(answerer),
            batches=make_batches(source, example, self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(answerer, example, context),
            parts=parts,
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / context.corpus.rate_hz,
        )

    def outline(self, run: RunConfig) -> Outline:
        configs, shapes = outlined(self.parts, run)
        answerer, rows = self.answerer(configs), self.batches.batch
        turns = (Turn("user", "a", start_s=0.0, end_s=1.0), Turn("user", "b"), Turn("assistant", "c"))
        item = {"samples": np.zeros(self.clip, np.float32), "messages": turns}
        example = AnswerExample(answerer, self.clip, self.length)(item, np.random.default_rng(0))
        return Outline(
            *self._learner(answerer),
            batch=stacked_shapes(example, rows),
            tokens=rows * self.length,
            speech_s=rows * self.clip / run.corpus.rate_hz,
            frozen=shapes,
        )

    def answerer(self, configs: dict[str, Config]) -> Answerer:
        """The parts of these configs, put together."""
        encoder, lm = configs[ENCODER], configs[LM]
        return Answerer(encoder.make(), self.adapter.make(), with_lora(lm.make(), self.lora))

    def _learner(self, answerer: Answerer) -> Learner:
        lm, width = answerer.lm.model, answerer.encoder.config.width

        def initialise(key: jax.Array) -> dict[str, Any]:
            some = Frames(jnp.zeros((1, 2, width)), jnp.ones((1, 2), bool))
            adapter = answerer.adapter.init(key, some)["params"]
            lora = lora_initialise(lambda key: lm.init(key, jnp.zeros((1, 2), jnp.int32)), self.lora)(key)["lora"]
            return {"params": {"adapter": adapter}, "lora": lora}

        objective, owns = AnswerObjective(answerer, self.alignment), matching("(params|lora)/")
        return initialise, [Player(name="answerer", objective=objective, optimizer=self.optimizer, owns=owns)]

    def _fitting(self, context: StageContext, example: AnswerExample, split: str) -> Subset:
        source = context.source(split, KINDS)
        kept = [i for i in range(len(source)) if example.fits(source[i])]
        if len(kept) < len(source):
            context.say(f"stage {self.name}: {len(source) - len(kept)} of {len(source)} items are too long: left out")
        return Subset(source, kept)

    def _evaluation(self, answerer: Answerer, example: AnswerExample, context: StageContext) -> Any:
        dev = self._fitting(context, example, "dev")
        if not len(dev):
            return None
        rows = [example(dev[i], np.random.default_rng(0)) for i in range(min(len(dev), self.batches.batch))]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        objective = AnswerObjective(answerer, self.alignment)
        loss = jax.jit(lambda variables, frozen: objective(variables, batch, None, frozen))

        def evaluate(state: Any, frozen: Any) -> dict[str, float]:
            term = loss(state.served, frozen).terms["answer"]
            return {"nats_per_byte": float(term.total / term.count)}

        return evaluate
