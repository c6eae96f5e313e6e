"""Conversations that wait for a system: answered one after the other, or a few together, by one thread."""

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from slm_jax.core.contracts import Reply, System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Conversation
from slm_jax.serving.delays import Delays
from slm_jax.serving.hearing import require_readable

LOG = logging.getLogger(__name__)


class Answered(NamedTuple):
    """The reply, or why there is none; seconds as in `serving.seats.Said`."""

    reply: Reply | None
    fault: str | None
    queue_s: float
    model_s: float
    at_s: float


class Question:
    """A conversation that waits. `tell(answered)` is called by the answering thread."""

    def __init__(self, conversation: Conversation, turn: int, tell: Callable[[Answered], None]) -> None:
        self.conversation, self.turn, self.tell = conversation, turn, tell
        self.asked_at, self.dropped = time.monotonic(), False

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self.dropped = True


class Replies:
    """Answers of `system` under `decoding` (None: its own).

    `together`: how many conversations that wait are answered at once: more are quicker on an accelerator, and the last
    digits of a sum may then depend on who else asks. The n-th turn of anybody is drawn with the n-th key of `seed`.
    """

    def __init__(self, system: System, decoding: Any = None, *, together: int = 1, seed: int = 0) -> None:
        self.system, self.decoding, self.together = system, decoding, together
        self.delays = Delays()
        self._key = jax.random.key(seed)
        self._waiting: deque[Question] = deque()
        self._changed, self._closed = Condition(), False
        self._thread = Thread(target=self._work, name="replies", daemon=True)

    def __enter__(self) -> "Replies":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """The reply that is being made ends, then the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def ask(self, conversation: Conversation, turn: int, tell: Callable[[Answered], None]) -> Question:
        """Puts a conversation behind those that wait. Raises `UserError` for what the system does not read."""
        require_readable([conversation], self.system.reads)
        question = Question(conversation, turn, tell)
        with self._changed:
            self._waiting.append(question)
            self._changed.notify_all()
        return question

    def figures(self) -> dict[str, Any]:
        """Delays in seconds."""
        return self.delays.figures()

    def _work(self) -> None:
        while questions := self._gathered():
            start = time.monotonic()
            made = self._answers(questions)
            end = time.monotonic()
            for question, one in zip(questions, made, strict=True):
                reply, fault = (one, None) if isinstance(one, Reply) else (None, one)
                self.delays.waited(start - question.asked_at, end - start)
                question.tell(Answered(reply, fault, start - question.asked_at, end - start, end))

    def _gathered(self) -> list[Question]:
        """Waits for questions; the first ones, none when it is over."""
        with self._changed:
            while not self._closed:
                self._waiting = deque(question for question in self._waiting if not question.dropped)
                if self._waiting:
                    return [self._waiting.popleft() for _ in range(min(self.together, len(self._waiting)))]
                self._changed.wait()
        return []

    def _answers(self, questions: list[Question]) -> list[Reply | str]:
        """A reply to each, or what is wrong; one that cannot be answered takes no other with it."""
        try:
            keys = jnp.stack([jax.random.fold_in(self._key, question.turn) for question in questions])
            asked = [question.conversation for question in questions]
            return list(self.system.respond(asked, self.decoding, keys))
        except Exception as error:
            if len(questions) > 1:
                return [made for question in questions for made in self._answers([question])]
            if not isinstance(error, UserError):
                LOG.exception("the model failed")
            return [str(error) if isinstance(error, UserError) else f"the model failed: {error}"]
