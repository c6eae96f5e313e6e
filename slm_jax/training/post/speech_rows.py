"""Which items of a corpus a stage that learns to answer can use, and how they become rows."""

import dataclasses
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError
from slm_jax.data.examples.speech_prompts import PromptLayout, SpeechPromptExample, problems
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.joined import Subset
from slm_jax.data.mixture import PartConfig, of_corpus
from slm_jax.training.post.clip_units import ClipUnitsConfig
from slm_jax.training.post.clip_words import ClipWordsConfig
from slm_jax.training.post.lm_targets import with_targets
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageContext

CLIP_UNITS = "clip_units"
TaskItems = tuple[Any, SpeechPromptExample]
"""The items that a task can use, and how they become examples."""


@dataclasses.dataclass(frozen=True)
class SpeechRows:
    """The room of stage `name`: see `SpeechAwareStageConfig`, whose fields these are."""

    name: str
    layout: PromptLayout
    encoder: Config | None
    units: ClipUnitsConfig | None
    heard: ClipWordsConfig | None
    clip_s: float
    clips: int
    length: int
    written: int | None
    asked: int | None

    def of(self, part: PartConfig, folder: StageFolder, context: StageContext, split: str) -> TaskItems:
        """The items of a split that a task can use, and how they become examples; the others are counted.

        Raises `UserError` when there is nothing to train on.
        """
        source, example = self._read(part, folder, context, split)
        kept, reasons = problems(example, source)
        if reasons:
            told = "; ".join(f"{count} ({reason})" for reason, count in reasons.items())
            context.say(f"stage {self.name}, {part.name}: of {len(source)} {split} items are left out: {told}")
        if split == "train" and not kept:
            why = reasons or "none there"
            raise UserError(f"stage {self.name!r}: no train item can be used for {part.name!r} ({why})")
        return Subset(source, kept), example

    def _read(self, part: PartConfig, folder: StageFolder, context: StageContext, split: str) -> TaskItems:
        task, rate_hz = part.example, context.corpus.rate_hz
        assert isinstance(task, SpeechTaskConfig)  # for the type checker
        clip = round(self.clip_s * rate_hz)
        example = SpeechPromptExample(
            self.layout, task, rate_hz, clip, self.length, self.clips, written=self.written, asked=self.asked
        )
        source = with_targets(of_corpus(context.source(split, task.reads), part), task, split, context)
        source = source if self.heard is None else self.heard.read(source, example, context)
        if self.units is None:
            return source, example
        assert self.encoder is not None  # for the type checker
        return self.units.read(source, example, self.encoder, folder.path / CLIP_UNITS / split / part.name, context)
