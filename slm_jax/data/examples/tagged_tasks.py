"""Items of a corpus asked by the tags of a task (Qwen-Audio): a recording, tags, what is to be written."""

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.data.examples.speech_tasks import AskedTaskConfig, Item, known_fields, mono
from slm_jax.text.task_tags import QUESTION, TaskTags


class TaggedTaskConfig(AskedTaskConfig):
    """The whole recording, `tags`, an answer out of the item's fields. `asks`: the words of a question, or fields."""

    tags: TaskTags
    asks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.before, "before", self.before, "tags stand behind the clip")
        worded = bool(self.asks) == (self.tags.task == QUESTION)
        require(worded, "asks", self.asks, f"go with the task {QUESTION!r}; this one is {self.tags.task!r}")

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = self.said(item, rng)
        if said is None:
            return None
        clip, asked = Speech(mono(item), rate_hz), said[0].format_map(known_fields(item))
        return Message("user", (clip, *self.tags.parts(asked))), Message("assistant", (Text(said[1]),))
