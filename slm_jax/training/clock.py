"""Seconds of a log window, and those of them that were not training."""

import dataclasses
import time
from collections import defaultdict


@dataclasses.dataclass
class Clock:
    """One window from its start: rows, seconds of speech and model FLOPs of its steps, seconds lost by cause.

    `data` is part of a step's time, since the next batch is awaited between two steps; what is spent on the other
    causes (`compile`, `save`, `evaluate`) is left out of it.
    """

    start: float = dataclasses.field(default_factory=time.perf_counter)
    spent: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    rows: int = 0
    speech_s: float = 0.0
    flops: float = 0.0

    def seconds(self) -> float:
        """Training time of the window so far."""
        apart = sum(seconds for cause, seconds in self.spent.items() if cause != "data")
        return time.perf_counter() - self.start - apart
