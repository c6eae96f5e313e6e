"""When the next push of a room is: as soon as everybody is heard, and not quicker than they speak."""

from collections.abc import Sequence

HASTE = 1.02
"""How much quicker than real time pushes may follow each other for ever: clocks of microphones differ."""
MADE_UP = 4
"""Pushes that may follow each other at once after a pause, so that what was late is made up for."""


class Pace:
    """Times of pushes that stand for `period_s` seconds each. Times are seconds of any clock."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._allowed: float | None = None

    def next_at(self, whole_since: Sequence[float], complete: bool) -> float:
        """When to push what is whole since these times: at once when it is `complete` (nobody who was in the last push
        is awaited), else when the first of it has waited for a period; never above the pace."""
        first = min(whole_since) + (0.0 if complete else self.period_s)
        return first if self._allowed is None else max(first, self._allowed)

    def pushed(self, now: float) -> None:
        """A push begins."""
        earliest = now - MADE_UP * self.period_s
        before = earliest if self._allowed is None else max(self._allowed, earliest)
        self._allowed = before + self.period_s / HASTE
