"""Push to talk: sound and words are gathered, and a system answers them when it is asked to."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.audio.files import resample
from slm_jax.core.messages import Message, Part, Speech, Text
from slm_jax.serving.replies import Answered, Question, Replies
from slm_jax.serving.web.answer import Answer
from slm_jax.serving.web.events import Event, Refused
from slm_jax.serving.web.sound import RATE_HZ, samples_of
from slm_jax.serving.web.talk import Talk

PIECE_S = 0.2
"""Sound of a reply goes out in pieces of so many seconds."""


class TurnSide:
    """What was said since the last response is one message, and that is answered.

    `later(function, ...)` has it called in the thread of the server, `wake` says that there is something to send.
    """

    lost: str | None = None

    def __init__(
        self, replies: Replies, clip_s: float | int, later: Callable[..., Any], wake: Callable[[], None]
    ) -> None:
        self._replies, self._most, self._later, self._wake = replies, round(clip_s * RATE_HZ), later, wake
        self._clip: list[np.ndarray] = []
        self._parts: list[Part] = []
        self._turn = 0
        self._question: Question | None = None
        self._answer: Answer | None = None
        self._answered: Answered | None = None

    def join(self, talk: Talk) -> None:
        """The talk that it is a side of."""
        self.talk = talk

    def hear(self, samples: Float[np.ndarray, "N"]) -> None:
        """More of the clip."""
        if sum(map(len, self._clip)) + len(samples) > self._most:
            raise Refused("buffer_full", f"a turn has at most {self._most / RATE_HZ:g} s of sound: commit or clear it")
        self._clip.append(samples)

    def commit(self) -> None:
        """The clip is whole."""
        if not sum(map(len, self._clip)):
            raise Refused("input_audio_buffer_commit_empty", "nothing was heard since the last commit")
        if "speech" not in self._replies.system.reads:
            raise Refused("unsupported_item", "this system does not listen")
        self._parts.append(self._speech(np.concatenate(self._clip)))
        self._clip = []
        self.talk.committed()

    def clear(self) -> None:
        """Nothing was heard."""
        self._clip = []

    def read(self, content: list[Any]) -> list[dict[str, Any]]:
        """Words, or a clip at once."""
        parts = [self._part(one) for one in content]
        self._parts += parts
        kinds = ["input_text" if isinstance(part, Text) else "input_audio" for part in parts]
        words = [part.text if isinstance(part, Text) else None for part in parts]
        return [{"type": kind, "text": text} for kind, text in zip(kinds, words, strict=True)]

    def create(self) -> None:
        """Asks for a reply."""
        if self._answer is not None:
            raise Refused("conversation_already_has_active_response", "wait for the response, or cancel it")
        if not self._parts:
            raise Refused("nothing_to_answer", "say something first")
        asked = (Message("user", tuple(self._parts)),)
        self._parts = []
        turn, self._turn = self._turn, self._turn + 1
        self._question = self._replies.ask(asked, turn, lambda answered: self._later(self._take, turn, answered))
        self._answer = Answer(self.talk.ids, self.talk.settings.form, self.talk.last_item)
        self.talk.last_item = self._answer.item
        self.talk.tell(*self._answer.begin())

    def cancel(self) -> None:
        """Nobody waits for the reply."""
        if self._answer is None:
            raise Refused("response_cancel_not_active", "there is no response to cancel")
        self.leave()
        answer, self._answer, self._answered = self._answer, None, None
        self.talk.tell(*answer.end("cancelled"))

    def events(self) -> Iterator[Event]:
        """The reply, once it is there, unless somebody cancels it meanwhile."""
        answer, answered, self._answered = self._answer, self._answered, None
        if answer is None or answered is None:
            return
        out_s = time.monotonic() - answered.at_s
        self._replies.delays.sent(out_s)
        waited = {"queue": answered.queue_s, "model": answered.model_s, "out": out_s}
        latency = {part: round(1e3 * seconds, 2) for part, seconds in waited.items()}
        for event in self._content(answer, answered):
            if self._answer is not answer:
                return
            yield event
        if self._answer is answer:
            self._answer = None
            status = "completed" if answered.fault is None else "failed"
            yield from answer.end(status, answered.fault, latency_ms=latency)

    def leave(self) -> None:
        """Nobody listens any more."""
        if self._question is not None:
            self._question.drop()
            self._question = None

    def _take(self, turn: int, answered: Answered) -> None:
        if self._question is not None and self._question.turn == turn:
            self._answered = answered
            self._wake()

    def _content(self, answer: Answer, answered: Answered) -> Iterator[Event]:
        if answered.reply is None:
            return
        for message in answered.reply.messages:
            yield from answer.words(message.text)
            for clip in message.speech:
                samples = resample(clip.samples, clip.rate_hz, RATE_HZ)
                step = round(PIECE_S * RATE_HZ)
                for start in range(0, len(samples), step):
                    yield from answer.sound(samples[start : start + step])

    def _part(self, one: Any) -> Part:
        kind = one.get("type") if isinstance(one, dict) else None
        reads = self._replies.system.reads
        if kind == "input_text" and isinstance(one.get("text"), str):
            part: Part = Text(one["text"])
        elif kind == "input_audio":
            samples = samples_of(one.get("audio"), "item.content.audio")
            if not 0 < len(samples) <= self._most:
                raise Refused("invalid_audio", f"a clip has 1 to {self._most} samples", "item.content.audio")
            part = self._speech(samples)
        else:
            raise Refused("unsupported_item", f"a content of type {kind!r} is not read", "item.content")
        if ("text" if isinstance(part, Text) else "speech") not in reads:
            raise Refused("unsupported_item", f"this system reads {' and '.join(sorted(reads))} only", "item.content")
        return part

    def _speech(self, samples: Float[np.ndarray, "N"]) -> Speech:
        return Speech(resample(samples, RATE_HZ, self._replies.system.rate_hz), self._replies.system.rate_hz)
