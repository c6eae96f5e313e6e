"""What people and systems say to each other: messages of speech and text, and the turns of a recording.

    Message("user", (Speech(samples, 16_000), Text("What is said?")))

A conversation is a tuple of messages, whatever the system: a pure speech LM goes on with its only message, one that is
asked answers the last. A corpus keeps one waveform per item and beside it `Turn`s, which say who says what when.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.core.errors import UserError, require

ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True, eq=False)
class Speech:
    """One clip: samples in [-1, 1] at `rate_hz` samples per second.

    `words`: what a recogniser wrote down of it, for systems that read both; None: nobody has.
    """

    samples: Float[np.ndarray, "N"]
    rate_hz: int
    words: str | None = None

    def __post_init__(self) -> None:
        samples = self.samples
        require(isinstance(samples, np.ndarray), "samples", type(samples).__name__, "a NumPy array")
        require(samples.ndim == 1, "samples", samples.shape, "one channel, a vector")
        require(np.issubdtype(samples.dtype, np.floating), "samples", str(samples.dtype), "floating point in [-1, 1]")
        require(self.rate_hz > 0, "rate_hz", self.rate_hz, "samples per second, above 0")

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate_hz


@dataclasses.dataclass(frozen=True)
class Text:
    """Written words."""

    text: str


Part = Speech | Text


@dataclasses.dataclass(frozen=True)
class Message:
    """What one side says at once: parts in the order in which they are to be read. `role`: one of `ROLES`."""

    role: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        require(self.role in ROLES, "role", self.role, f"must be one of {', '.join(ROLES)}")
        require(len(self.parts) > 0, "parts", self.parts, "a message holds something")

    @property
    def text(self) -> str:
        """Its written words, parts joined by spaces."""
        return " ".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def speech(self) -> tuple[Speech, ...]:
        """Its clips."""
        return tuple(part for part in self.parts if isinstance(part, Speech))

    @property
    def kinds(self) -> frozenset[str]:
        """Which of `speech` and `text` it holds."""
        return frozenset("speech" if isinstance(part, Speech) else "text" for part in self.parts)


Conversation = tuple[Message, ...]


def with_words(said: Conversation, words: Sequence[str | None]) -> Conversation:
    """The conversation with what was written down of each of its clips, in their order; raises `UserError` unless there
    are as many as clips."""
    count = sum(len(message.speech) for message in said)
    require(len(words) == count, "words", len(words), f"the conversation has {count} clips")
    rest = iter(words)

    def part(one: Part) -> Part:
        return dataclasses.replace(one, words=next(rest)) if isinstance(one, Speech) else one

    return tuple(Message(message.role, tuple(map(part, message.parts))) for message in said)


def spoken(samples: Float[np.ndarray, "N"], rate_hz: int, role: str = "user") -> Conversation:
    """A conversation of one message with one clip: what a pure speech LM goes on with."""
    return (Message(role, (Speech(samples, rate_hz),)),)


def written(text: str, role: str = "user") -> Conversation:
    """A conversation of one message of text."""
    return (Message(role, (Text(text),)),)


@dataclasses.dataclass(frozen=True)
class Turn:
    """A message of a corpus' item, beside the item's waveform.

    `start_s`, `end_s` (seconds) and `channel` say where it is heard; without them it is written only. `text` None: what
    is said is not known. `speaker`: who says it. `answer`: the word that a right answer must hold, where it is known.
    """

    role: str
    text: str | None = None
    channel: int = 0
    start_s: float | None = None
    end_s: float | None = None
    speaker: str = ""
    answer: str | None = None

    def __post_init__(self) -> None:
        require(self.role in ROLES, "role", self.role, f"must be one of {', '.join(ROLES)}")
        require(self.channel >= 0, "channel", self.channel, "0 or more")
        timed = (self.start_s is None) == (self.end_s is None)
        require(timed, "start_s and end_s", (self.start_s, self.end_s), "both or neither")
        if self.start_s is not None and self.end_s is not None:
            require(0 <= self.start_s <= self.end_s, "start_s", self.start_s, f"in [0, end_s = {self.end_s}]")
        require(self.text is not None or self.start_s is not None, "text", None, "a turn is heard, written or both")

    @property
    def is_heard(self) -> bool:
        """Is it in the waveform?"""
        return self.start_s is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, without what is at its default."""
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Turn":
        """The inverse of `to_json`; raises `UserError` for unknown fields and for values of another type."""
        known = {field.name for field in dataclasses.fields(cls)}
        require(isinstance(data, dict) and set(data) <= known and "role" in data, "turn", data, f"has {sorted(known)}")
        return cls(**{name: _checked(name, value) for name, value in data.items()})


def _checked(name: str, value: Any) -> Any:
    kinds: dict[str, type | tuple[type, ...]] = {"channel": int, "start_s": (int, float), "end_s": (int, float)}
    optional = name in ("text", "answer", "start_s", "end_s")
    good = (value is None and optional) or (isinstance(value, kinds.get(name, str)) and not isinstance(value, bool))
    if not good:
        raise UserError(f"{name} of a turn is {value!r}: it has another type")
    return float(value) if name in ("start_s", "end_s") and value is not None else value


def conversation(
    turns: Sequence[Turn], samples: Float[np.ndarray, "N"] | Float[np.ndarray, "N Ch"], rate_hz: int
) -> Conversation:
    """The turns of an item as messages: the clip of a turn that is heard, the words of one that is only written.

    Neighbouring turns of one role are parts of one message.
    """
    found: list[Message] = []
    for turn in turns:
        parts = _parts(turn, samples, rate_hz)
        if found and found[-1].role == turn.role:
            found[-1] = Message(turn.role, found[-1].parts + parts)
        else:
            found.append(Message(turn.role, parts))
    return tuple(found)


def _parts(turn: Turn, samples: np.ndarray, rate_hz: int) -> tuple[Part, ...]:
    if turn.start_s is None or turn.end_s is None:
        return (Text(turn.text or ""),)
    channel = samples if samples.ndim == 1 else samples[:, turn.channel]
    clip = channel[round(turn.start_s * rate_hz) : round(turn.end_s * rate_hz)]
    return (Speech(clip, rate_hz),)
