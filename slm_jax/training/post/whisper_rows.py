"""Items of tasks as what Whisper is trained on: which can be used, batches of them, and their shapes."""

import dataclasses
from typing import Any

import jax
import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.examples.transcribed_speech import LETTERS, TranscribedSpeechConfig
from slm_jax.data.examples.whisper_targets import WhisperTargets
from slm_jax.data.joined import Subset
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.shapes import Shapes
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.training.stages import StageContext


class AuxiliaryCTCConfig(Config):
    """CTC on the encoder: its `weight` w in (1 - w) attention + w CTC, and the characters of `tokenizer`.

    `tasks`: names of the tasks whose answers are what is said, and are spelt; `longest`: letters of one at most.
    """

    weight: float = 0.3
    tasks: tuple[str, ...] = ("transcription",)
    tokenizer: CharacterTokenizerConfig = LETTERS
    longest: int = 128

    def __post_init__(self) -> None:
        require(0 < self.weight < 1, "weight", self.weight, "must lie in (0, 1)")

    @property
    def classes(self) -> int:
        """The blank and the characters."""
        return 1 + len(self.tokenizer.characters)


@dataclasses.dataclass(frozen=True)
class WhisperRows:
    """How a stage makes rows: clips of up to `clip_s` seconds, `length` ids, letters for CTC where there is one."""

    stage: str
    tasks: MixtureConfig
    clip_s: float
    length: int
    ctc: AuxiliaryCTCConfig | None

    def usable(
        self, part: PartConfig, prompts: TaskPrompts, context: StageContext, split: str
    ) -> tuple[Subset, WhisperTargets]:
        """The items of a split that a task can use, and how they become examples; the others are counted."""
        task, source = part.example, self._source(part, context, split)
        assert isinstance(task, SpeechTaskConfig)  # for the type checker
        rate_hz, spelt = context.corpus.rate_hz, self.ctc is not None and part.name in self.ctc.tasks
        clip = round(self.clip_s * rate_hz)
        example = WhisperTargets(prompts, task, rate_hz, clip, self.length, self._letters(clip), spelt)
        kept, reasons = sorted_out(example, source)
        if reasons:
            told = "; ".join(f"{count} ({reason})" for reason, count in reasons.items())
            context.say(f"stage {self.stage}, {part.name}: of {len(source)} {split} items are left out: {told}")
        if split == "train" and not kept:
            why = reasons or "none there"
            raise UserError(f"stage {self.stage!r}: no train item can be used for {part.name!r} ({why})")
        return Subset(source, kept), example

    def held_out(
        self, prompts: TaskPrompts, context: StageContext, count: int
    ) -> dict[str, list[dict[str, np.ndarray]]]:
        """Rows of the first `count` dev items of every task that it can use."""
        found = {}
        for part in self.tasks.parts:
            source, example = self.usable(part, prompts, context, "dev")
            some = range(min(len(source), count))
            found[part.name] = [example(source[i], np.random.default_rng(i)) for i in some]
        return found

    def shapes(self, rows: int, rate_hz: int) -> Shapes:
        """Of a batch."""

        def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *shape), dtype)

        clip = round(self.clip_s * rate_hz)
        made = {"samples": array(np.float32, clip), "sample_mask": array(np.bool_, clip)}
        row = {"ids": np.int32, "mask": np.bool_, "target_weight": np.float32}
        made |= {name: array(dtype, self.length) for name, dtype in row.items()}
        if self.ctc is not None:
            made |= {"labels": array(np.int32, self.ctc.longest), "label_mask": array(np.bool_, self.ctc.longest)}
        return {**made, "example": array(np.int64)}

    def _source(self, part: PartConfig, context: StageContext, split: str) -> Any:
        kinds = part.example.kinds  # type: ignore[union-attr]
        source = context.source(split, kinds)
        return source if part.corpus is None else Subset(source, source.places[part.corpus])

    def _letters(self, clip: int) -> TranscribedSpeechConfig | None:
        if self.ctc is None:
            return None
        return TranscribedSpeechConfig(samples=clip, labels=self.ctc.longest, tokenizer=self.ctc.tokenizer)


def sorted_out(example: WhisperTargets, source: Any) -> tuple[list[int], dict[str, int]]:
    """Places of the items that can be used, and how many cannot, by the reason."""
    found = [example.problem(source[place]) for place in range(len(source))]
    reasons = [reason for reason in found if reason is not None]
    kept = [place for place, reason in enumerate(found) if reason is None]
    return kept, {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
