"""What one client may ask for, so that there is something left for the others."""

import time

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class Limits(Config):
    """`minutes`: of a session. `message_bytes`: of one event; above `hard_bytes` the connection is closed while it is
    read. `messages_per_s`: in the mean, with twice as many at once. `clip_s`: seconds of sound in one turn, where one
    speaks in turns. `patience_s`: how long a client may take to read one event.
    """

    minutes: float | int = 30
    message_bytes: int = 262_144
    messages_per_s: float | int = 100
    clip_s: float | int = 60
    patience_s: float | int = 10

    def __post_init__(self) -> None:
        for name in ("minutes", "message_bytes", "messages_per_s", "clip_s", "patience_s"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")

    @property
    def hard_bytes(self) -> int:
        """What is not even read."""
        return 8 * self.message_bytes


class MessageRate:
    """Counts the messages of a client."""

    def __init__(self, per_s: float | int) -> None:
        self._per_s, self._left, self._at = per_s, 2.0 * per_s, time.monotonic()
        self._told = False

    def allows(self) -> bool:
        """May this one be read?"""
        now = time.monotonic()
        self._left = min(2.0 * self._per_s, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        self._told = False
        return True

    def first_refused(self) -> bool:
        """Was the last one the first that may not? One error for all of them is enough."""
        first, self._told = not self._told, True
        return first
