"""An open microphone: a seat in a room, whose row speaks while it hears."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.audio.resampler import Resampler
from slm_jax.serving.rooms import Room
from slm_jax.serving.seats import Full, Said
from slm_jax.serving.web.answer import Answer
from slm_jax.serving.web.events import Event, Refused
from slm_jax.serving.web.sound import RATE_HZ
from slm_jax.serving.web.talk import Talk


class OpenSide:
    """The response begins with the first frame and goes on until `commit` and all that was heard by then, or `cancel`,
    with which the row begins anew. Raises `UserError` when there is no seat."""

    def __init__(self, room: Room, wake: Callable[[], None]) -> None:
        self._room, self._seat = room, room.take(wake)
        rate_hz = room.session.rate_hz
        self._heard, self._spoken = Resampler(RATE_HZ, rate_hz), Resampler(rate_hz, RATE_HZ)
        self._answer: Answer | None = None
        self._open = False
        self._told, self._cancelled = 0, 0
        self._until: int | None = None

    @property
    def lost(self) -> str | None:
        """Why the seat is lost."""
        return self._seat.lost

    def join(self, talk: Talk) -> None:
        """The talk that it is a side of."""
        self.talk = talk

    def hear(self, samples: Float[np.ndarray, "N"]) -> None:
        """Sound of the microphone; frames go to the model at once."""
        try:
            self._seat.hear(self._heard.piece(samples))
        except Full as error:
            raise Refused("buffer_full", str(error)) from None
        self._open = self._open or len(samples) > 0

    def commit(self) -> None:
        """The last frame is filled up with silence, and the response ends with what comes back for it."""
        if not self._open:
            raise Refused("input_audio_buffer_commit_empty", "nothing was heard since the last commit")
        self._seat.hear(self._heard.finish())
        self._until, self._open = self._seat.fill_up(), False
        self.talk.committed()

    def clear(self) -> None:
        """What waits is not heard."""
        self._heard.finish()
        pushed = self._seat.forget()
        if self._until is not None:
            self._until = min(self._until, pushed)
        self._open = False

    def read(self, content: list[Any]) -> list[dict[str, Any]]:
        """Nothing is read."""
        raise Refused("unsupported_item", "this system listens all the time and reads no text", "item")

    def create(self) -> None:
        """The response is on its way as soon as something is heard."""
        if self._answer is None and not self._open and self._until is None:
            raise Refused("nothing_to_answer", "nothing was heard that is not answered: send sound first")

    def cancel(self) -> None:
        """The response ends here, and the row begins anew."""
        if self._answer is None:
            raise Refused("response_cancel_not_active", "there is no response to cancel")
        self._seat.begin_anew()
        self._heard.finish()
        self._open = False
        self.talk.tell(*self._end("cancelled"))
        self._told, self._cancelled = 0, self._cancelled + 1

    def events(self) -> Iterator[Event]:
        """What was said since the last time."""
        while self._seat.has_said:  # one by one: what is not sent yet can still be cancelled
            cancelled = self._cancelled
            for event in [event for said in self._seat.fetch(1) for event in self._said(said)]:
                if self._cancelled == cancelled:
                    yield event
        yield from self._end_if_done()

    def leave(self) -> None:
        """The seat is free."""
        self._room.leave(self._seat)

    def _said(self, said: Said) -> list[Event]:
        """The events of one frame."""
        begins = self._answer is None
        answer = self._answer or Answer(self.talk.ids, self.talk.settings.form, self.talk.last_item)
        self._answer, self._told = answer, said.number + 1
        out_s = time.monotonic() - said.at_s
        self._room.delays.sent(out_s)
        waited = {"queue": said.queue_s, "model": said.model_s, "out": out_s}
        latency = {part: round(1e3 * seconds, 2) for part, seconds in waited.items()}
        sound = answer.sound(self._spoken.piece(said.samples), frame=said.number, latency_ms=latency)
        return [*(answer.begin() if begins else []), *sound, *answer.words(said.text), *self._end_if_done()]

    def _end_if_done(self) -> list[Event]:
        if self._until is None or self._told < self._until:
            return []
        self._until = None
        return self._end("completed") if self._answer is not None else []

    def _end(self, status: str) -> list[Event]:
        answer, self._answer, self._until = self._answer, None, None
        assert answer is not None
        rest = self._spoken.finish()
        self.talk.last_item = answer.item
        return [*(answer.sound(rest) if status == "completed" else []), *answer.end(status)]
