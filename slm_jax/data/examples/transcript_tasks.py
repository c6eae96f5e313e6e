"""Tasks about speech with a transcript beside it, which the language model reads after what is asked (LTU-AS)."""

from collections.abc import Sequence

import numpy as np

from slm_jax.core.messages import Conversation, Message, Text
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig, known_fields


class TranscriptTaskConfig(SpeechTaskConfig):
    """The conversations of `task` with what is said in their clips as a message of the system behind the question.

    `field`: where an item has that transcript, such as one that a recogniser wrote into the manifest; None: the words
    that the corpus knows. An item without any is asked without one.
    """

    task: SpeechTaskConfig
    field: str | None = None

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.task.reads

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = self.task.conversation(item, rate_hz, rng)
        if said is None:
            return None
        words = self.words(item) if self.field is None else (str(known_fields(item).get(self.field) or ""),)
        return (*with_transcript(said[:-1], words or ()), said[-1])

    def words(self, item: Item) -> tuple[str, ...] | None:
        return self.task.words(item)

    def key(self, item: Item) -> str:
        return self.task.key(item)


def with_transcript(asked: Conversation, words: Sequence[str]) -> Conversation:
    """What is asked as one message, clips first, then what is said in them as a message of the system."""
    clips = [clip for message in asked for clip in message.speech]
    texts = [part for message in asked for part in message.parts if isinstance(part, Text)]
    said = " ".join(word for word in words if word)
    told = (Message("system", (Text(said),)),) if said else ()
    return (Message("user", (*clips, *texts)), *told)
