"""Runs whose system reads a transcript beside what it hears, and who writes that down."""

from collections.abc import Sequence

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.part_source import STAGE
from slm_jax.core.trees import together
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.serving.transcribed import Transcribed, Writes
from slm_jax.serving.transcriber import load_transcriber
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.parts import load_frozen
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.stages import StageContext


class TranscribedConfig(SpeechAwareConfig):
    """A run whose system hears through `transcriber` too: a folder of a Whisper, `hub:NAME`, or `stage:NAME` of CTC."""

    transcriber: str

    def load(self, context: StageContext) -> Transcribed:  # type: ignore[override]
        """The trained system behind its transcriber."""
        return Transcribed(super().load(context), self.writes_down(context))

    def writes_down(self, context: StageContext) -> Writes:
        """From clips to their words."""
        if self.transcriber.startswith(STAGE):
            return _by_letters(self.stage(self.transcriber.removeprefix(STAGE)), context)
        whisper = load_transcriber(self.transcriber)
        return lambda clips: [found.text.strip() for found in whisper.transcribe(clips)]


def _by_letters(stage: object, context: StageContext) -> Writes:
    """The greedy words of a stage that CTC taught letters; clips it has no room for are cut."""
    require(isinstance(stage, CTCStageConfig), "transcriber", type(stage).__name__, "must be a stage of CTC")
    assert isinstance(stage, CTCStageConfig)  # for the type checker
    variables = trained(context.finished(stage.name))[1]
    variables = together(variables, load_frozen(context.run, stage.name))
    reader = CTCReader(stage.model(), variables, stage.example, stage.batches.batch)

    def written(clips: Sequence[np.ndarray]) -> list[str]:
        return reader.texts([{"samples": clip[: stage.example.samples], "text": ""} for clip in clips])

    return written
