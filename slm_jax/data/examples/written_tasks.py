"""Tasks about speech, with the words of the speech in its place: bounds for text alone, cascades, text-only rows."""

import numpy as np

from slm_jax.core.messages import Conversation, Message, Part, Text
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig
from slm_jax.text.templates import clips_of


class WrittenTaskConfig(SpeechTaskConfig):
    """The conversations of `task`, each clip replaced by what is said in it.

    An item whose words are not known has none, nor one with a clip of more than `longest_s` seconds, as where that is
    heard. With the true words it says what a system could reach that heard perfectly; in a mixture it keeps a language
    model in practice with text.
    """

    task: SpeechTaskConfig
    longest_s: float | None = None

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.task.reads

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said, words = self.task.conversation(item, rate_hz, rng), self.task.words(item)
        if said is None or words is None or self._is_too_long(said):
            return None
        rest = iter(words)

        def written(part: Part) -> Part:
            return part if isinstance(part, Text) else Text(next(rest))

        return tuple(Message(message.role, tuple(map(written, message.parts))) for message in said)

    def words(self, item: Item) -> tuple[str, ...]:
        return ()

    def _is_too_long(self, said: Conversation) -> bool:
        return self.longest_s is not None and any(clip.seconds > self.longest_s for clip in clips_of(said))

    def key(self, item: Item) -> str:
        return self.task.key(item)
