"""Many speakers in one batch, in real time: seats that are taken, rest and are left apart from each other.

One thread pushes whatever frames are whole. No seat waits for a client: what comes in and what goes out is bounded, and
who does not fetch what is said loses the seat. What others hear does not change by a bit.
"""

import logging
import time
from collections.abc import Callable
from threading import Condition, Thread
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.core.contracts import Session
from slm_jax.core.errors import UserError
from slm_jax.serving.delays import Delays
from slm_jax.serving.pace import Pace
from slm_jax.serving.seats import Frame, Said, Seat

LOG = logging.getLogger(__name__)


class Room:
    """The seats of one session, and the thread that pushes for them.

    `heard_s`, `said_s`: seconds of sound that may wait for the model, and for a client, at each seat.
    """

    def __init__(self, session: Session, *, heard_s: float = 10.0, said_s: float = 10.0) -> None:
        self.session, self.delays = session, Delays()
        self.period_s = session.hop / session.rate_hz
        self.slow, self.pushes = 0, 0
        self.fault: str | None = None
        self._frames = tuple(max(1, round(seconds / self.period_s)) for seconds in (heard_s, said_s))
        self._seats: list[Seat | None] = [None] * session.batch
        self._last: list[Seat] = []
        self._pace = Pace(self.period_s)
        self._changed, self._closed = Condition(), False
        self._thread = Thread(target=self._work, name="room", daemon=True)

    def open(self) -> "Room":
        """Compiles with silence, then listens."""
        everyone = np.ones(self.session.batch, bool)
        self.session.push(np.zeros((self.session.batch, self.session.hop), np.float32), everyone)
        self.session.reset(everyone)
        self._thread.start()
        return self

    def close(self) -> None:
        """The last push ends, then the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> "Room":
        return self.open()

    def __exit__(self, *_: Any) -> None:
        self.close()

    def take(self, wake: Callable[[], None]) -> Seat:
        """A free seat, whose row begins anew. `wake()` is called by the thread whenever there is something to fetch.

        Raises `UserError` when none is free, and after the model failed.
        """
        with self._changed:
            if self.fault:
                raise UserError(self.fault)
            row = next((row for row, seat in enumerate(self._seats) if seat is None), None)
            if row is None:
                raise UserError(f"all {self.session.batch} seats are taken: come back later")
            seat = Seat(row, self.session.hop, self._changed, wake, *self._frames)
            self._seats[row] = seat
            return seat

    def leave(self, seat: Seat) -> None:
        """The seat is free again; leaving twice does no harm."""
        with self._changed:
            if self._seats[seat.row] is seat:
                self._seats[seat.row] = None
            self._changed.notify_all()

    def _work(self) -> None:
        while frames := self._gathered():
            start = time.monotonic()
            self._pace.pushed(start)
            try:
                spoken = self.session.push(*self._pushed(frames))
                self._deliver(frames, spoken, start, time.monotonic())
            except Exception as error:  # whatever it is, nobody must wait for ever
                LOG.exception("the model failed")
                return self._fail(f"the model failed: {error}")
        return None

    def _gathered(self) -> list[Frame]:
        """Waits until a push is due; the frames it is for, none when the room is closed."""
        with self._changed:
            while not self._closed:
                ready = [seat for seat in self._seats if seat is not None and seat.whole]
                wait = self._wait_s(ready) if ready else None
                if wait is not None and wait <= 0:
                    self._last = ready
                    return [seat.next_frame() for seat in ready]
                self._changed.wait(wait)
        return []

    def _wait_s(self, ready: list[Seat]) -> float:
        awaited = [seat for seat in self._last if self._seats[seat.row] is seat and not seat.whole]
        return self._pace.next_at([seat.since for seat in ready], not awaited) - time.monotonic()

    def _pushed(self, frames: list[Frame]) -> tuple[Float[np.ndarray, "B N"], np.ndarray]:
        """What the session is pushed; rows that begin are reset before."""
        samples = np.zeros((self.session.batch, self.session.hop), np.float32)
        active, fresh = np.zeros((2, self.session.batch), bool)
        for frame in frames:
            samples[frame.seat.row], active[frame.seat.row] = frame.samples, True
            fresh[frame.seat.row] = frame.number == 0
        if fresh.any():
            self.session.reset(fresh)
        return samples, active

    def _deliver(self, frames: list[Frame], spoken: Any, start: float, end: float) -> None:
        """`spoken`: `core.contracts.Spoken`, or what has more fields than that."""
        self.pushes += 1
        self.slow += end - start > self.period_s
        with self._changed:
            for frame in frames:
                row, queue_s = frame.seat.row, start - frame.since
                self.delays.waited(queue_s, end - start)
                said = Said(frame.number, spoken.samples[row].copy(), spoken.texts[row], queue_s, end - start, end)
                frame.seat.deliver(frame.life, said)
                if frame.seat.lost and self._seats[row] is frame.seat:
                    self._seats[row] = None
        for frame in frames:
            _wake(frame.seat)

    def _fail(self, why: str) -> None:
        """Everybody loses their seat and is told."""
        with self._changed:
            self.fault = why
            lost = [seat for seat in self._seats if seat is not None]
            self._seats = [None] * len(self._seats)
            for seat in lost:
                seat.lost = why
        for seat in lost:
            _wake(seat)

    def figures(self) -> dict[str, Any]:
        """Pushes, those that took longer than the sound they stand for, and delays in seconds."""
        return {"pushes": self.pushes, "slow": self.slow, **self.delays.figures()}


def _wake(seat: Seat) -> None:
    """A client's mistake is not the room's."""
    try:
        seat.wake()
    except Exception:
        LOG.exception("a client could not be woken")
