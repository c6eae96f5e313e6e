"""Instructions that are spoken instead of written, by the voice of the world's corpus in several speakers."""

import functools
import re
import threading
import zlib

import numpy as np
from jaxtyping import Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Part, Speech, Text
from slm_jax.data.corpora.world_voice import make_speakers, the_voice, to_int16
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig
from slm_jax.data.passes import float_samples

PAUSE_S = 0.25
KEPT = 1024
"""Spoken instructions that a process remembers."""
_speaking = threading.Lock()


class SpeakersConfig(Config):
    """Who speaks: `count` voices of the world's `seed`, at `speed` times their own."""

    count: int = 4
    seed: int = 0
    speed: float = 1.0

    def __post_init__(self) -> None:
        require(self.count >= 1, "count", self.count, "at least one speaker")
        require(self.speed > 0, "speed", self.speed, "above 0")

    def spoken(self, text: str, number: int, rate_hz: int) -> Float[np.ndarray, "N"]:
        """A text at `rate_hz` (Hz) by one of the speakers, its sentences one after the other; the same every time.

        It is made once in a process. Raises `UserError` for words that cannot be pronounced.
        """
        return _spoken(self, text, number % self.count, rate_hz)


class SpokenTaskConfig(SpeechTaskConfig):
    """The conversations of `task`, with what is written in the user's last message spoken: one clip more each.

    Wording and speaker follow from the item's id, so that what is heard of an item is always the same.
    """

    task: SpeechTaskConfig
    speakers: SpeakersConfig = SpeakersConfig()

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.task.reads

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = self._written(item, rate_hz)
        if said is None:
            return None
        number = self._drawn(item)

        def spoken(part: Part) -> Part:
            text = part.text.strip() if isinstance(part, Text) else ""
            return Speech(self.speakers.spoken(text, number, rate_hz), rate_hz) if text else part

        return *said[:-2], Message("user", tuple(map(spoken, said[-2].parts))), said[-1]

    def words(self, item: Item) -> tuple[str, ...] | None:
        said, known = self._written(item, 1), self.task.words(item)
        if said is None or known is None:
            return None
        rest = iter(known)
        before = [next(rest) for message in said[:-2] for _ in message.speech]
        return (*before, *(part.text if isinstance(part, Text) else next(rest) for part in said[-2].parts))

    def key(self, item: Item) -> str:
        return self.task.key(item)

    def _written(self, item: Item, rate_hz: int) -> Conversation | None:
        return self.task.conversation(item, rate_hz, np.random.default_rng(self._drawn(item)))

    def _drawn(self, item: Item) -> int:
        return zlib.crc32(f"{self.speakers.seed}/{item['id']}".encode())


def sentences(text: str) -> list[str]:
    """The parts of a text that are spoken one by one."""
    return re.split(r"(?<=[.!?])\s+", text)


@functools.lru_cache(maxsize=KEPT)
def _spoken(speakers: SpeakersConfig, text: str, number: int, rate_hz: int) -> Float[np.ndarray, "N"]:
    speaker, pause = (
        make_speakers(speakers.count, speakers.seed)[number],
        np.zeros(round(PAUSE_S * rate_hz), np.float32),
    )
    seed, made = [speakers.seed, zlib.crc32(text.encode()), number], list[np.ndarray]()
    with _speaking:
        for sentence in sentences(text):
            said = the_voice().speak(sentence, speed=speakers.speed, speaker=speaker, seed=seed, rate_hz=rate_hz)
            made += [pause, float_samples(to_int16(said.samples))]
    found = np.concatenate(made[1:])
    found.setflags(write=False)
    return found
