"""Conversations about one clip as rows of Whisper's decoder: prefix, answer, what is learnt; letters for CTC."""

import dataclasses
from itertools import product
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Speech
from slm_jax.data.examples.speech_tasks import AskedTaskConfig, Item, SpeechTaskConfig
from slm_jax.data.examples.transcribed_speech import BLANK, TranscribedSpeechConfig
from slm_jax.text.task_prompts import TaskPrompts


@dataclasses.dataclass(frozen=True)
class WhisperTargets:
    """An item of a task as arrays: a clip of up to `clip` samples, a row of `length` ids.

    Nothing is ever cut: what does not fit is refused by name (`problem` asks before). `letters`: how answers are spelt
    for CTC (None: not at all); `spelt` says whether those of this task are, as is right where they are what is said.
    """

    prompts: TaskPrompts
    task: SpeechTaskConfig
    rate_hz: int
    clip: int
    length: int
    letters: TranscribedSpeechConfig | None = None
    spelt: bool = False

    def __call__(self, item: Item, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`samples`, `sample_mask` [N], `ids`, `mask`, `target_weight` [S]; with letters `labels`, `label_mask` [L]."""
        said = self.task.conversation(item, self.rate_hz, rng)
        require(said is not None, "item", item.get("id"), "the task has no answer for it")
        assert said is not None  # for the type checker
        clip, asked = clip_and_words(said[:-1])
        heard = self.heard(clip.samples)
        return {**heard, **self.row(self.prompts.prefix(asked), said[-1].text), **self._spelling(said[-1].text)}

    def problem(self, item: Item) -> str | None:
        """Why the item cannot be used in some wording that may be drawn, None where it can."""
        said = self.task.conversation(item, self.rate_hz, np.random.default_rng(0))
        if said is None:
            return "no answer"
        if len(clip_and_words(said[:-1])[0].samples) > self.clip:
            return "the clip is too long"
        if max(self._entries(asked, answer) for asked, answer in self._wordings(item, said)) > self.length:
            return "the row is too long"
        return "too many letters" if self.letters and len(self._spelt(said[-1].text)) > self.letters.labels else None

    def heard(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """The clip, padded; raises `UserError` for one that is longer than there is room for."""
        missing = self.clip - len(samples)
        rule = f"there is room for {self.clip}; nothing is cut"
        require(missing >= 0, "clip", f"{len(samples)} samples", rule)
        return {
            "samples": np.pad(samples.astype(np.float32, copy=False), (0, missing)),
            "sample_mask": np.arange(self.clip) < len(samples),
        }

    def row(self, prefix: list[int], answer: str) -> dict[str, np.ndarray]:
        """Prefix and answer, padded; only the answer and its end weigh."""
        ids = np.array([*prefix, *self.prompts.answer(answer)], np.int32)
        missing = self.length - len(ids)
        require(missing >= 0, "ids", len(ids), f"a row holds {self.length}; nothing is cut")
        place = np.arange(self.length)
        weight = ((place >= len(prefix)) & (place < len(ids))) * np.float32(self.task.counts)
        return {"ids": np.pad(ids, (0, missing)), "mask": place < len(ids), "target_weight": weight}

    def _entries(self, asked: str, answer: str) -> int:
        return len(self.prompts.prefix(asked)) + len(self.prompts.answer(answer))

    def _wordings(self, item: Item, said: Conversation) -> list[tuple[str, str]]:
        """What may be asked and answered of an item."""
        task = self.task
        if not isinstance(task, AskedTaskConfig):
            return [(clip_and_words(said[:-1])[1], said[-1].text)]
        ways = (task.replace(asks=(ask,), answers=(form,)) for ask, form in product(task.asks or ("",), task.answers))
        return [pair for way in ways if (pair := way.said(item, np.random.default_rng(0))) is not None]

    def _spelt(self, answer: str) -> np.ndarray:
        none = np.zeros(0, np.int32)
        return self.letters.labels_of(answer) if self.letters is not None and self.spelt else none

    def _spelling(self, answer: str) -> dict[str, np.ndarray]:
        if self.letters is None:
            return {}
        labels, room = self._spelt(answer), self.letters.labels
        require(len(labels) <= room, "letters", len(labels), f"there is room for {room}; nothing is cut")
        padded = np.pad(labels, (0, room - len(labels)), constant_values=BLANK)
        return {"labels": padded, "label_mask": np.arange(room) < len(labels)}


def clip_and_words(conversation: Conversation) -> tuple[Speech, str]:
    """The one clip of what the user says, and the words beside it; raises `UserError` for more clips and for none."""
    clips = [clip for message in conversation for clip in message.speech]
    if len(clips) != 1:
        raise UserError(f"the conversation has {len(clips)} clips: Whisper hears one")
    return clips[0], " ".join(message.text for message in conversation if message.text)


def without_targets(row: dict[str, Any]) -> dict[str, Any]:
    """A row that counts for nothing, to fill up a batch."""
    counted = ("target_weight", "label_mask")
    return {name: np.zeros_like(value) if name in counted else value for name, value in row.items()}
