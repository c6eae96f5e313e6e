"""A mel vocoder: the spectrogram of a waveform back to that waveform (Kong et al. 2020)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.examples.waveform_segments import ChannelConfig, WaveformSegmentConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.objectives.vocoder import GeneratorObjective, spoken, waveform_of
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share, trained
from slm_jax.training.loop import Evaluate
from slm_jax.training.parts import check_parts, open_parts
from slm_jax.training.pre.segments import held_out_segments, segment_shapes, whole_frames
from slm_jax.training.pre.vocoder_stage import VocoderStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form

HELD_OUT = 32
"""Segments of the dev split that are measured while training."""


class MelVocoderStageConfig(VocoderStageConfig):
    """Trains `model` on segments of `segment_s` seconds, each from its own spectrogram.

    `weights`: a folder (a hub's, or one that `convert` wrote) or `hub:NAME` whose generator is trained on. `channel`:
    how segments are changed, as other microphones and lines would.
    """

    model: MelVocoderConfig = MelVocoderConfig()
    segment_s: float = 0.4
    weights: str | None = None
    channel: ChannelConfig | None = None

    def __post_init__(self) -> None:
        require(self.model.features is not None, "model.features", None, "the spectrogram that it reads must be known")
        one = self.weights is None or self.start_from is None
        require(one, "weights", self.weights, f"it begins with those of stage {self.start_from!r} already")

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        if self.weights is None:
            return ()
        return (PartSource(path="params/generator", source=self.weights, frozen=False, expect=self.model),)

    @property
    def needs(self) -> tuple[str, ...]:
        before = () if self.start_from is None else (self.start_from,)
        return (*stages_of(self._parts), *before)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, self.model.rate_hz, "model.rate_hz")

    @property
    def example(self) -> WaveformSegmentConfig:
        """How a recording becomes a segment: whole frames."""
        samples = whole_frames(self.segment_s, self.model.rate_hz, self.model.hop)
        return WaveformSegmentConfig(samples=samples, rate_hz=self.model.rate_hz, channel=self.channel)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        source, example = context.source("train"), self.example.make()
        return Plan(
            *self._learner(),
            batches=make_batches(source, example, self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(context),
            parts=open_parts(self._parts, folder) if self._parts else None,
            start_from=None if self.start_from is None else trained(context.finished(self.start_from))[1],
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / self.model.rate_hz,
            meta={"vocoder": self.model.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        rows, example = self.batches.batch, self.example
        return Outline(
            *self._learner(),
            batch=segment_shapes(example, rows),
            tokens=rows * example.samples // self.model.hop,
            speech_s=rows * example.samples / self.model.rate_hz,
        )

    def model_of(self, folder: StageFolder) -> tuple[MelVocoderConfig, str]:
        return self.model, "generator"

    def planned_model(self, run: RunConfig) -> MelVocoderConfig:
        return self.model

    def _learner(self) -> Learner:
        vocoder, frames = self.model.make(), jnp.zeros((1, 4, self.model.mels))
        return self.players(vocoder, lambda key: vocoder.init(key, frames), self.example.samples)

    def _evaluation(self, context: StageContext) -> Evaluate | None:
        """The spectral loss on held-out segments, which are the same each time and unchanged."""
        batch = held_out_segments(context, self.example, HELD_OUT, self.name)
        if batch is None:
            return None
        measured = jax.jit(partial(self._spectral, GeneratorObjective(self.losses, self.model.make()), batch))

        def evaluate(state: Any, frozen: Any) -> dict[str, float]:
            return {"spectral": float(measured(state.served))}

        return evaluate

    def _spectral(self, objective: GeneratorObjective, batch: Any, variables: Any) -> jax.Array:
        mask = batch["sample_mask"][:, :: self.model.hop]
        own = {"params": variables["params"]["generator"]}
        made = spoken(objective.vocoder, own, batch, mask, jax.random.key(0))
        return objective.spectral(made, waveform_of(batch), mask).mean()
