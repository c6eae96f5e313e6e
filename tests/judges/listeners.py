"""Systems whose replies are known in advance: they hear which tone is played and say what their table holds."""

import dataclasses
from typing import Any

import numpy as np

from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech, Text

RATE_HZ, SECONDS = 8_000, 0.5
TEXTS = (
    "seven grey cats sleep", "five old men sing", "blue birds fly south", "nobody likes wet socks",
    "every train leaves late", "their garden grows roses", "wild horses run far", "small children ask why",
)  # fmt: skip
"""No word comes twice."""


def tone(number):
    """What item `number` sounds like."""
    return (0.3 * np.sin(2 * np.pi * (300 + 100 * number) * np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ)).astype("f4")


def number_of(clip):
    """Which tone a clip is."""
    peak = np.abs(np.fft.rfft(clip.samples)).argmax() * clip.rate_hz / len(clip.samples)
    return round((peak - 300) / 100)


@dataclasses.dataclass
class Listener:
    """Hears a tone at 16 kHz, twice the rate of the corpus, and replies `says[tone]`; notes what it is asked."""

    says: tuple[str, ...]
    reads: frozenset = frozenset({"speech", "text"})
    writes: frozenset = frozenset({"text"})
    rate_hz: int = 16_000
    decoding: Any = None
    heard: list = dataclasses.field(default_factory=list)

    def respond(self, conversations, decoding, key):
        assert len(key) == len(conversations)
        self.heard += conversations
        return [self.reply(one) for one in conversations]

    def reply(self, one):
        (clip,) = [clip for message in one for clip in message.speech]
        assert clip.rate_hz == self.rate_hz
        return Reply((Message("assistant", (Text(self.says[number_of(clip)]),)),), {})


@dataclasses.dataclass
class Reader:
    """A system of text alone: to an opening of `TEXTS` it says what its table holds."""

    goes_on: tuple[str, ...]
    reads: frozenset = frozenset({"text"})
    writes: frozenset = frozenset({"text"})
    rate_hz: int = 16_000
    decoding: Any = None

    def respond(self, conversations, decoding, key):
        openings = [" ".join(text.split()[:2]) for text in TEXTS]
        found = [self.goes_on[openings.index(one[-1].text)] for one in conversations]
        return [Reply((Message("assistant", (Text(text),)),), {}) for text in found]


class ScoringReader(Reader):
    """One that knows its texts: a word that follows the one before it has probability a half, any other a tenth."""

    def log_prob(self, conversations):
        known = {pair for text in TEXTS for pair in zip(["", *text.split()], [*text.split(), ""], strict=True)}
        return [self._scores(one[-1].text.split(), known) for one in conversations]

    def _scores(self, words, known):
        return [np.log(0.5 if pair in known else 0.1) for pair in zip(["", *words], [*words, ""], strict=True)]


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@dataclasses.dataclass
class Worker(Listener):
    """Says a quarter of a second of speech after `work_s[tone]` seconds; its first reply to a tone takes 5 s more."""

    writes: frozenset = frozenset({"speech"})
    clock: Clock = dataclasses.field(default_factory=Clock)
    work_s: tuple[float, ...] = ()

    def respond(self, conversations, decoding, key):
        return [self.reply(one) for one in conversations]

    def reply(self, one):
        number = number_of(one[0].speech[0])
        self.clock.now += self.work_s[number] + (0 if number in self.heard else 5)
        self.heard.append(number)
        return Reply((Message("assistant", (Speech(np.zeros(4_000, np.float32), 16_000),)),), {})


class Streamer(Worker):
    """One that also streams, 100 ms at 16 kHz at a time: every fifth push of a row takes 0.3 s, the others 0.02 s."""

    def open(self, batch):
        return Opened(self.clock, batch)


class Opened:
    hop, rate_hz = 1_600, 16_000

    def __init__(self, clock, batch):
        self.clock, self.batch, self.pushed, self.resets = clock, batch, 0, 0

    def push(self, samples, active):
        assert samples.shape == (self.batch, self.hop) and active.all()
        self.pushed += 1
        self.clock.now += 0.3 if self.pushed % 5 == 0 else 0.02
        return samples

    def reset(self, rows):
        self.pushed, self.resets = 0, self.resets + 1
