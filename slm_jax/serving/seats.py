"""A seat of a room: ragged sound in, whole frames to the model, and what is said back, both bounded."""

import time
from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slm_jax.core.errors import UserError, require


class Full(UserError):
    """More sound than may wait."""


class Said(NamedTuple):
    """What came back for a frame: `number` counts the frames of a row since it began.

    Seconds: `queue_s` from the time at which the frame was whole to the push, `model_s` of the push, which ended at
    `at_s` of the monotonic clock.
    """

    number: int
    samples: Float[np.ndarray, "N"]
    text: str
    queue_s: float
    model_s: float
    at_s: float


class Frame(NamedTuple):
    """What a push takes from a seat. `life`: which beginning of its row it belongs to."""

    seat: "Seat"
    life: int
    number: int
    samples: Float[np.ndarray, "N"]
    since: float


class Seat:
    """Who sits on row `row`. Any thread may hear and fetch; `lost` says why the seat is gone, None while it is not."""

    def __init__(
        self, row: int, hop: int, changed: Condition, wake: Callable[[], None], most_heard: int, most_said: int
    ) -> None:
        self.row, self.hop, self.wake = row, hop, wake
        self.lost: str | None = None
        self._changed, self._most_heard, self._most_said = changed, most_heard, most_said
        self._rest = np.zeros(0, np.float32)
        self._frames: deque[tuple[np.ndarray, float]] = deque()
        self._said: deque[Said] = deque()
        self._life, self._number = 0, 0

    def hear(self, samples: Float[np.ndarray, "N"]) -> int:
        """The next samples of a microphone, as many as there are; how many frames are whole since the row began.

        Raises `UserError` for what is not finite, and for more than may wait; neither is heard, and nothing is lost.
        """
        samples = np.asarray(samples, np.float32)
        require(samples.ndim == 1, "samples", samples.shape, "one channel, a vector")
        require(bool(np.isfinite(samples).all()), "samples", "NaN or Inf", "must be finite")
        with self._changed:
            rest = np.concatenate([self._rest, samples])
            whole = len(rest) // self.hop
            if len(self._frames) + whole > self._most_heard:
                raise Full(f"{self._most_heard} frames wait already: send sound no quicker than it is spoken")
            now = time.monotonic()
            self._frames.extend((part, now) for part in rest[: whole * self.hop].reshape(whole, self.hop))
            self._rest = rest[whole * self.hop :]
            if whole:
                self._changed.notify_all()
            return self._number + len(self._frames)

    def fill_up(self) -> int:
        """Silence after the last samples, so that they are a whole frame; as `hear`."""
        missing = -len(self._rest) % self.hop
        return self.hear(np.zeros(missing, np.float32))

    def forget(self) -> int:
        """What waits for the model is not heard; how many frames were since the row began."""
        with self._changed:
            self._frames.clear()
            self._rest = self._rest[:0]
            return self._number

    def begin_anew(self) -> None:
        """Nothing that was heard or said counts any more, and the row is as new."""
        with self._changed:
            self.forget()
            self._said.clear()
            self._life, self._number = self._life + 1, 0

    def fetch(self, most: int | None = None) -> list[Said]:
        """What was said and not fetched yet, `most` frames of it (None: all). Raises `UserError` when there is nothing,
        and never will be, because the seat is lost."""
        with self._changed:
            if self.lost and not self._said:
                raise UserError(f"the seat is lost: {self.lost}")
            count = len(self._said) if most is None else min(most, len(self._said))
            return [self._said.popleft() for _ in range(count)]

    @property
    def has_said(self) -> bool:
        """Is there something to fetch?"""
        return bool(self._said)

    @property
    def whole(self) -> bool:
        """Is there a frame for the model?"""
        return bool(self._frames)

    @property
    def since(self) -> float:
        """Since when."""
        return self._frames[0][1]

    def next_frame(self) -> Frame:
        """The first frame that waits; for the room, which holds the lock."""
        samples, since = self._frames.popleft()
        self._number += 1
        return Frame(self, self._life, self._number - 1, samples, since)

    def deliver(self, life: int, said: Said) -> None:
        """What came back for a frame, unless the row began anew meanwhile; for the room, which holds the lock."""
        if life != self._life or self.lost:
            return
        if not np.isfinite(said.samples).all():
            self.lost = "what the model says is not finite"
        elif len(self._said) >= self._most_said:
            self.lost = f"{self._most_said} frames were said and not fetched"
            self._said.clear()
        else:
            self._said.append(said)
