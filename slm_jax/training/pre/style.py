"""Style: an encoder learns to tell the manners of speaking that a corpus knows (SpiRit-LM's style encoder)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.data.corpus import RATE_HZ, CorpusConfig
from slm_jax.data.examples.labelled_speech import LabelledSpeechConfig, LabelsConfig
from slm_jax.data.joined import Subset
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import stacked_shapes
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_classifier import SSLClassifierConfig
from slm_jax.objectives.classes import ClassesObjective
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.step import Player

HELD_OUT = 64
"""Stretches of the dev split that are measured while training."""


class StyleStageConfig(GradientStageConfig):
    """Trains `encoder`, with a head over the classes of `labels`, on stretches of `clip_s` seconds.

    Every `window` frames are told on their own. Items that do not say all labels are left out. `start_from`: where the
    encoder's weights begin, `stage:NAME` of this run, `hub:NAME` or a folder; None draws them. `take`: the part of the
    model in `start_from` that is meant.
    """

    encoder: SSLEncoderConfig
    labels: LabelsConfig = LabelsConfig()
    projection: int = 256
    window: int = 50
    clip_s: float = 2.0
    start_from: str | None = None
    take: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return stages_of(self._parts)

    @property
    def model(self) -> SSLClassifierConfig:
        """The encoder with its head."""
        count = self.labels.count
        return SSLClassifierConfig(encoder=self.encoder, classes=count, projection=self.projection, window=self.window)

    @property
    def example(self) -> LabelledSpeechConfig:
        """How an item becomes a stretch."""
        return LabelledSpeechConfig(samples=round(self.clip_s * RATE_HZ), labels=self.labels)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        source = self._labelled(context, "train")
        require(len(source) > 0, f"stage {self.name}: items with labels", 0, f"some must say {self.labels.fields}")
        return Plan(
            *self._learner(),
            batches=make_batches(source, self.example.make(), self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(context),
            parts=open_parts(self._parts, folder) if self._parts else None,
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / RATE_HZ,
            meta={"labels": self.labels.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        rows, example = self.batches.batch, self.example
        first = {field: values[0] for field, values in zip(self.labels.fields, self.labels.values, strict=True)}
        item = {"id": "", "samples": np.zeros(example.samples, np.float32), **first}
        return Outline(
            *self._learner(),
            batch=stacked_shapes(example.make()(item, np.random.default_rng(0)), rows),
            tokens=rows * int(self.encoder.frame_count(example.samples)),
            speech_s=rows * example.samples / RATE_HZ,
            frozen=outlined(self._parts, run)[1],
        )

    def model_of(self, folder: StageFolder) -> tuple[SSLClassifierConfig, str]:
        return self.model, ""

    def planned_model(self, run: RunConfig) -> SSLClassifierConfig:
        return self.model

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        if self.start_from is None:
            return ()
        source = self.start_from
        return (PartSource(path="params/encoder", source=source, frozen=False, expect=self.encoder, take=self.take),)

    def _learner(self) -> Learner:
        model, samples = self.model.make(), self.example.samples
        player = Player(name="style", objective=ClassesObjective(model), optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, samples))), [player]

    def _labelled(self, context: StageContext, split: str) -> Subset:
        source = context.source(split)
        return Subset(source, [i for i in range(len(source)) if self.labels.has(source[i])])

    def _evaluation(self, context: StageContext) -> Evaluate | None:
        """Cross-entropy and accuracy on stretches of held-out items, the same each time."""
        dev, make = self._labelled(context, "dev"), self.example.make()
        if not len(dev):
            context.say_unmeasured(self.name)
            return None
        rows = [make(dev[i], np.random.default_rng(i)) for i in range(min(HELD_OUT, len(dev)))]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        objective = jax.jit(ClassesObjective(self.model.make()))

        def evaluate(state: Any, frozen: Any) -> dict[str, float]:
            metrics = objective(state.served, batch, jax.random.key(0)).metrics
            return {name: float(total) / max(float(count), 1.0) for name, (total, count) in metrics.items()}

        return evaluate
