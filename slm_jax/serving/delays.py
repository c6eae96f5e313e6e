"""What everybody waited for: seconds in the queue, in the model and on the way out, of the last frames or replies."""

from collections import deque
from threading import Lock
from typing import Any

from slm_jax.evaluation.latency import percentiles

PARTS = ("queue", "model", "out")
KEPT = 7_500
"""Ten minutes of frames of 80 ms."""


class Delays:
    """Times of the last `KEPT` frames by part; may be asked by any thread."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[float]] = {part: deque(maxlen=KEPT) for part in PARTS}
        self._lock = Lock()
        self.count = 0

    def waited(self, queue_s: float, model_s: float) -> None:
        """A frame was whole for `queue_s` seconds before the model took it, and the model took `model_s`."""
        with self._lock:
            self.count += 1
            self._kept["queue"].append(queue_s)
            self._kept["model"].append(model_s)

    def sent(self, out_s: float) -> None:
        """What came out of the model was handed to the socket so many seconds later."""
        with self._lock:
            self._kept["out"].append(out_s)

    def figures(self) -> dict[str, Any]:
        """`count`, and percentiles in seconds by part: `queue_p50` ... `out_mean`; None where nothing was measured."""
        with self._lock:
            kept = {part: list(times) for part, times in self._kept.items()}
        found: dict[str, Any] = {"count": self.count}
        for part, times in kept.items():
            found |= percentiles(times, f"{part}_")
        return found
