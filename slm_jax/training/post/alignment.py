"""Alignment as a stage that any speech-aware text LM can take before it is tuned, or while it is.

Implicit    its targets are what the language model itself answered (`training.post.lm_targets`), learnt as words, or
            as distributions of words (`alike`)
Explicit    what is read of speech is to be near the vectors of the words that are said (`near`)
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM
from slm_jax.core.errors import require
from slm_jax.data.examples.aligned_speech import AlignedSpeechExample
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.data.mixture import PartConfig
from slm_jax.data.shapes import Shapes
from slm_jax.nn.lora import LoRAModel
from slm_jax.objectives.alignment import Alignment, SameWordsConfig
from slm_jax.objectives.token_distance import TokenDistanceConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.post.speech_rows import SpeechRows, TaskItems
from slm_jax.training.pre.word_times import with_word_times
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageContext


class AlignmentStageConfig(SpeechAwareStageConfig):
    """A `SpeechAwareStageConfig` with more in its loss; the stage that tunes the system goes on from it.

    `near`: the distance of speech from its words; `times`: a stage that found when these are said
    (`training.pre.word_times`), None as the corpus knows it; up to `said` tokens of a clip. `alike`: the distribution
    of every word of the answer is to be that which follows when `form` stands in the place of the clip, in a row of up
    to `beside` ids. `answers`: how much the words of the answer count beside these, 0 for nothing.
    """

    near: TokenDistanceConfig | None = None
    alike: SameWordsConfig | None = None
    answers: float = 1.0
    times: str | None = None
    said: int = 48
    form: str = "{text}"
    beside: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        some = self.near is not None or self.alike is not None or self.answers > 0
        require(some and self.answers >= 0, "answers", self.answers, "nothing would be learnt, or less than nothing")
        timed = self.near is not None and self.near.segmenter.timed  # type: ignore[attr-defined]
        require(self.times is None or timed, "times", self.times, "goes with `near` over segments in time")
        if self.near is not None:
            require(self.clips == 1, "clips", self.clips, "one: the tokens of a row are those of its clip")
            require(self.units is None, "units", self.units, "have no frames in which a token could be said")
            self.near.segmenter.check(self.adapter)  # type: ignore[attr-defined]

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().needs, *(() if self.times is None else (self.times,)))))

    def objective_of(self, model: SpeechAwareLM | LoRAModel) -> Alignment:
        return Alignment(model, self.objective, self.answers, self.near, self.alike)

    def _rows(self, layout: PromptLayout, frame_s: float) -> SpeechRows:
        return AlignedRows(**_fields(super()._rows(layout, frame_s)), stage=self, frame_s=frame_s)

    def _shapes(self, rows: int, clip: int, reads: str) -> Shapes:
        def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *shape), dtype)

        found = super()._shapes(rows, clip, reads)
        if self.near is not None:
            found |= {"token_ids": array(np.int32, self.said), "token_mask": array(np.bool_, self.said)}
            timed = self.near.segmenter.timed  # type: ignore[attr-defined]
            found |= {"token_spans": array(np.float32, self.said, 2)} if timed else {}
        if self.alike is not None:
            found |= {"text_ids": array(np.int32, self.beside), "text_mask": array(np.bool_, self.beside)}
            found |= {"text_weight": array(np.float32, self.beside)} if self.written is None else {}
        return found


@dataclasses.dataclass(frozen=True)
class AlignedRows(SpeechRows):
    """The rows of `stage`, with what it aligns by."""

    stage: AlignmentStageConfig
    frame_s: float

    def _read(self, part: PartConfig, folder: StageFolder, context: StageContext, split: str) -> TaskItems:
        source, example = super()._read(part, folder, context, split)
        stage, made = self.stage, partial(AlignedSpeechExample, **_fields(example))
        if stage.times is not None:
            source = with_word_times(source, stage.times, split, context)
        if stage.near is not None:
            timed = stage.near.segmenter.timed  # type: ignore[attr-defined]
            made = partial(made, said=stage.said, timed=timed, frame_s=self.frame_s)
        return source, made(form=stage.form, beside=stage.beside) if stage.alike is not None else made()


def _fields(of: Any) -> dict[str, Any]:
    return {field.name: getattr(of, field.name) for field in dataclasses.fields(of)}
