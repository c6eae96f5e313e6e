"""Tasks about speech, with the words of the speech in its place: bounds for text alone, cascades, text-only rows."""

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Part, Text
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig
from slm_jax.text.templates import clips_of


class WrittenTaskConfig(SpeechTaskConfig):
    """The conversations of `task`, each clip replaced by what is said in it.

    An item whose words are not known has none, nor one with a clip of more than `longest_s` seconds, as where that is
    heard. With the true words it says what a system could reach that heard perfectly; in a mixture it keeps a language
    model in practice with text. `stutter`: each word stands 1 to so many times in a row, drawn each time, so that a
    model that learns from nothing else does not mind how many vectors a word takes, as speech has them.
    """

    task: SpeechTaskConfig
    longest_s: float | None = None
    stutter: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.stutter >= 1, "stutter", self.stutter, "at least 1 time")

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.task.reads

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said, words = self.task.conversation(item, rate_hz, rng), self.task.words(item)
        if said is None or words is None or self._is_too_long(said):
            return None
        rest = iter(words)

        def written(part: Part) -> Part:
            return part if isinstance(part, Text) else Text(stuttered(next(rest), self.stutter, rng))

        return tuple(Message(message.role, tuple(map(written, message.parts))) for message in said)

    def words(self, item: Item) -> tuple[str, ...]:
        return ()

    def _is_too_long(self, said: Conversation) -> bool:
        return self.longest_s is not None and any(clip.seconds > self.longest_s for clip in clips_of(said))

    def key(self, item: Item) -> str:
        return self.task.key(item)


def stuttered(text: str, most: int, rng: np.random.Generator) -> str:
    """Each word 1 to `most` times in a row."""
    if most == 1:
        return text
    words = text.split()
    return " ".join(np.repeat(words, rng.integers(1, most + 1, len(words))).tolist())
