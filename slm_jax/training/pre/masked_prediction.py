"""HuBERT pre-training: the encoder predicts the units of frames it cannot see (Hsu et al. 2021)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from slm_jax.audio.rates import SSL_CONVS, receptive_field
from slm_jax.core.errors import require
from slm_jax.data.corpus import RATE_HZ
from slm_jax.data.examples.masked_speech import MaskedSpeechConfig
from slm_jax.data.joined import Joined
from slm_jax.data.mixture import MixtureConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.objectives.masked_prediction import HubertPretrainingConfig, MaskedPredictionConfig
from slm_jax.training.gradient_stage import (
    GradientStageConfig,
    Learner,
    Outline,
    Plan,
    described,
    host_share,
    trained,
)
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player


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

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        units = FrameUnitsConfig.of(context.finished(self.targets))
        labels = RecordSource(units.records(context.finished(self.targets), "train"))
        source: Any = Joined(context.source("train"), labels)
        if self.mixture is not None:
            source = self.mixture.sources(source, context.places("train"), kinds=False)
        hop = target_hop(units, lambda name: MaskedPredictionStageConfig.of(context.finished(name)))
        example = self.example(labels_per_frame(self.model.encoder, hop))
        return Plan(
            *self._learner(units, example),
            batches=make_batches(source, example.make(), self.batches, **host_share(self.train.mesh)),
            start_from=self._start(context),
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / RATE_HZ,
            meta={"classes": units.clusters},
        )

    def outline(self, run: RunConfig) -> Outline:
        units = described(run, self.targets, FrameUnitsConfig)
        hop = target_hop(units, lambda name: described(run, name, MaskedPredictionStageConfig))
        example = self.example(labels_per_frame(self.model.encoder, hop))
        labels = np.zeros(example.frames * example.labels_per_frame, np.int32)
        crop = {"samples": np.zeros(example.crop_samples, np.float32), example.labels: labels}
        rows = self.batches.batch
        return Outline(
            *self._learner(units, example),
            batch=stacked_shapes(example.make()(crop, np.random.default_rng(0)), rows),
            tokens=rows * example.frames,
            speech_s=rows * example.crop_samples / RATE_HZ,
        )

    def _learner(self, units: FrameUnitsConfig, example: MaskedSpeechConfig) -> Learner:
        require(
            self.model.classes == units.clusters,
            f"{self.name}.model.classes",
            self.model.classes,
            f"stage {self.targets!r} has {units.clusters} units",
        )
        model = self.model.make()
        player = Player(name="encoder", objective=self.objective.make(model), optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, example.crop_samples))), [player]

    def example(self, labels_per_frame: int = 1) -> MaskedSpeechConfig:
        """How an utterance and its units become a crop."""
        return MaskedSpeechConfig(
            crop_samples=round(self.crop_s * 16_000),
            kernels_and_strides=frame_grid(self.model.encoder),
            mask_share=self.mask_share,
            mask_span=self.mask_span,
            labels="units",
            labels_per_frame=labels_per_frame,
        )

    def _start(self, context: StageContext) -> dict | None:
        if self.start_from is None:
            return None
        _, variables = trained(context.finished(self.start_from))
        return {"params": {"encoder": variables["params"]["encoder"]}}


def frame_grid(encoder: SSLEncoderConfig) -> tuple[tuple[int, int], ...]:
    """(kernel, stride) pairs that place the encoder's frames on the samples; a log-mel front end keeps HuBERT's."""
    if encoder.front_end == "log_mel":
        return SSL_CONVS
    return tuple((kernel, stride) for _, kernel, stride in encoder.conv_layers)


def target_hop(units: FrameUnitsConfig, stage_of: Callable[[str], MaskedPredictionStageConfig]) -> int:
    """Samples from one unit of a stage to the next; `stage_of` finds the stage that trained the encoder."""
    if not isinstance(units.features, LayerOfStageConfig):
        return receptive_field(SSL_CONVS)[1]
    return receptive_field(frame_grid(stage_of(units.features.stage).model.encoder))[1]


def labels_per_frame(encoder: SSLEncoderConfig, label_hop: int) -> int:
    """How many labels come in the time of one frame; raises `UserError` when it is no whole number."""
    hop = receptive_field(frame_grid(encoder))[1]
    rule = f"its frames are {hop} samples apart: a multiple of the labels' {label_hop} is needed"
    require(hop % label_hop == 0, "conv_layers", encoder.conv_layers, rule)
    return hop // label_hop
