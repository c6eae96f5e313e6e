"""Tasks about speech with a description in the place of the clip, and answers that a language model gave to that.

Both ask alike: what a model is asked about a description is what it learns to answer about the clip (implicit
alignment; BLSP, DeSTA).
"""

from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Part, Speech, Text
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig, known_fields
from slm_jax.data.mixture import MixtureConfig, PartConfig

DRAW, TARGET = "draw", "target"
"""Fields of a table of answers: the seed with which an item is asked, and what was answered."""


class DescribedTaskConfig(SpeechTaskConfig):
    """The conversations of `task`, each clip replaced by `form`, in which `{text}` and so on stand for fields.

    `{text}` alone is the transcript, as in BLSP. `{span} {text} (Speaking speed: {speaking_rate}, Volume: {energy})` is
    a description of DeSTA's kind; `{span}` is when it is said, `[00:00-00:04]`. An item that lacks a field of the form
    has no conversation.
    """

    task: SpeechTaskConfig
    form: str = "{text}"

    def __post_init__(self) -> None:
        super().__post_init__()
        require("{" in self.form, "form", self.form, "says nothing of the item: {text} and the like stand for fields")

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.task.reads

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = self.task.conversation(item, rate_hz, rng)
        return None if said is None else described(said, item, self.form)

    def key(self, item: Item) -> str:
        return self.task.key(item)


class GeneratedTaskConfig(SpeechTaskConfig):
    """The questions of `task`, answered as a language model answered them about a description of the clip.

    `stage`: the one that asked it (`training.post.lm_targets`), `part`: of its tasks. An item brings the stage's row,
    `draw` and `target`; one without an answer has no conversation. `of_backbone`: the language model that is to learn
    has to be the one that answered, with the same weights in the same dtype.
    """

    task: SpeechTaskConfig
    stage: str
    part: str = "task"
    of_backbone: bool = True

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.task.reads

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        if not item.get(TARGET):
            return None
        said = self.task.conversation(item, rate_hz, np.random.default_rng(item[DRAW]))
        return None if said is None else (*said[:-1], Message("assistant", (Text(item[TARGET]),)))

    def words(self, item: Item) -> tuple[str, ...] | None:
        return self.task.words(item)


def askable(tasks: MixtureConfig) -> MixtureConfig:
    """The same tasks where there is no table of answers, as for judging: the answers are those of the items."""

    def own(part: PartConfig) -> PartConfig:
        return part.replace(example=part.example.task) if isinstance(part.example, GeneratedTaskConfig) else part

    return MixtureConfig(parts=tuple(map(own, tasks.parts)))


def described(said: Conversation, item: Item, form: str) -> Conversation | None:
    """The conversation with `form`, filled in, in the place of each clip; None where a field is missing."""
    fields = _Known({"span": span_of(item), **known_fields(item)})
    words = form.format_map(fields)
    if fields.missing:
        return None

    def part(one: Part) -> Part:
        return Text(words) if isinstance(one, Speech) else one

    return tuple(Message(message.role, tuple(map(part, message.parts))) for message in said)


def span_of(item: Item) -> str:
    """From when to when an item lasts, as DeSTA's descriptions say it: `[00:00-00:04]`; empty where nobody knows."""
    seconds = item.get("seconds")
    return "" if seconds is None else f"[00:00-{round(seconds) // 60:02d}:{round(seconds) % 60:02d}]"


class _Known(dict[str, Any]):
    """Fields, and whether one was asked for that is not there."""

    missing = False

    def __missing__(self, name: str) -> str:
        self.missing = True
        return ""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self.missing = self.missing or value is None or value == ""
        return value
