"""HuBERT pre-training: the encoder predicts the units of frames it cannot see (Hsu et al. 2021)."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.corpus import RATE_HZ, CorpusConfig
from slm_jax.data.examples.masked_speech import MaskedSpeechConfig
from slm_jax.data.joined import Joined
from slm_jax.data.mixture import MixtureConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_pretraining import HubertPretrainingConfig
from slm_jax.objectives.masked_prediction import MaskedPredictionConfig
from slm_jax.training.gradient_stage import (
    GradientStageConfig,
    Learner,
    Outline,
    Plan,
    host_share,
    trained,
)
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.step import Player
from slm_jax.training.token_stage import planned_spec, token_stage


class MaskedPredictionStageConfig(GradientStageConfig):
    """Trains `model` to predict the units of stage `targets` under random spans of `crop_s` seconds of speech.

    `start_from`: an earlier stage of this kind whose encoder is the start; None starts afresh, as HuBERT's second
    iteration does. `mixture`: shares of corpora, None for every utterance once per epoch.
    """

    targets: str
    model: HubertPretrainingConfig
    crop_s: float = 4.0
    mask_share: float = 0.8
    mask_span: int = 10
    objective: MaskedPredictionConfig = MaskedPredictionConfig()
    start_from: str | None = None
    mixture: MixtureConfig | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.targets,) if self.start_from is None else (self.targets, self.start_from)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        stage = token_stage(context, self.targets)
        spec = stage.spec(context)
        labels = RecordSource(stage.records(context.finished(self.targets), "train"))
        source: Any = Joined(context.source("train"), labels)
        if self.mixture is not None:
            source = self.mixture.sources(source, context.places("train"), kinds=False)
        example = self.example(spec)
        return Plan(
            *self._learner(spec, example),
            batches=make_batches(source, example.make(), self.batches, **host_share(self.train.mesh)),
            start_from=self._start(context),
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / RATE_HZ,
            meta={"classes": spec.units},
        )

    def outline(self, run: RunConfig) -> Outline:
        spec = planned_spec(run, self.targets)
        example = self.example(spec)
        labels = np.zeros(example.frames * example.labels_per_frame, np.int32)
        crop = {"samples": np.zeros(example.crop_samples, np.float32), example.labels: labels}
        rows = self.batches.batch
        return Outline(
            *self._learner(spec, example),
            batch=stacked_shapes(example.make()(crop, np.random.default_rng(0)), rows),
            tokens=rows * example.frames,
            speech_s=rows * example.crop_samples / RATE_HZ,
        )

    def _learner(self, spec: TokenSpec, example: MaskedSpeechConfig) -> Learner:
        require(
            self.model.classes == spec.units,
            f"{self.name}.model.classes",
            self.model.classes,
            f"stage {self.targets!r} has {spec.units} units",
        )
        model = self.model.make()
        player = Player(name="encoder", objective=self.objective.make(model), optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, example.crop_samples))), [player]

    def example(self, spec: TokenSpec) -> MaskedSpeechConfig:
        """How an utterance and its units become a crop."""
        return MaskedSpeechConfig(
            crop_samples=round(self.crop_s * RATE_HZ),
            kernels_and_strides=self.model.encoder.frame_grid,
            mask_share=self.mask_share,
            mask_span=self.mask_span,
            labels=spec.columns[0],
            labels_per_frame=self.model.encoder.labels_per_frame(spec.hop),
        )

    def model_of(self, folder: StageFolder) -> tuple[SSLEncoderConfig, str]:
        return self.model.encoder, "encoder"

    def planned_model(self, run: RunConfig) -> SSLEncoderConfig:
        return self.model.encoder

    def _start(self, context: StageContext) -> dict | None:
        if self.start_from is None:
            return None
        _, variables = trained(context.finished(self.start_from))
        return {"params": {"encoder": variables["params"]["encoder"]}}
