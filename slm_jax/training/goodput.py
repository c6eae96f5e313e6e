"""Goodput: the share of the time since a run's first start in which it took steps that counted.

Every process appends what it did to `goodput.jsonl` and hands each line to the system at once, so that `kill -9` costs
at most the line it tears. A line closes the time since the line before; that time went to the causes it names, and
what is left over to the one that belongs to its kind of event.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.parallel.hosts import is_first_host
from slm_jax.training.stops import Interrupted

FILE = "goodput.jsonl"
CAUSES = {
    "start_up": "from the start of a process to its first step, without what has a cause of its own",
    "compile": "compiling the step",
    "restore": "reading a checkpoint",
    "data": "waiting for the next batch",
    "save": "writing checkpoints, as far as steps had to wait for it",
    "evaluate": "evaluation",
    "redone": "steps that had to be taken again, or of which nothing was kept",
    "downtime": "between the last sign of life of one process and the start of the next",
}
STEPS = "steps"
LEFT_OVER = {
    "start": "downtime",
    "ready": "start_up",
    "first step": "start_up",
    "log": STEPS,
    "save": STEPS,
    "evaluate": STEPS,
    "done": "save",
    "stopped": "save",
    "failed": "redone",
}
"""Where the time goes that an event does not give to a cause."""


class Ledger:
    """The events of one process, from entering to leaving; only the first host writes them.

    Add seconds to `spent[cause]` as they pass; the next event takes them along. A run that was done already gets no
    lines unless it turns out that there is something to do.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._file: BinaryIO | None = None
        self._held: list[dict[str, Any]] = []

    def __enter__(self) -> "Ledger":
        finished = [event["event"] for event in read_events(self.path)][-1:] == ["done"]
        start = {"event": "start", "time": time.time()}
        if finished:
            self._held.append(start)
        else:
            self._write(start)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        name = "done" if kind is None else "stopped" if issubclass(kind, Interrupted) else "failed"
        with contextlib.suppress(*() if kind is None else (OSError,)):  # a full disk has been told already
            if not self._held:
                self.note(name)
        if self._file is not None:
            self._file.close()

    def note(self, event: str, step: int | None = None) -> None:
        """An event now, after `step` steps (None: as many as at the event before)."""
        require(event in LEFT_OVER, "event", event, f"must be one of {sorted(LEFT_OVER)}")
        for held in self._held:
            self._write(held)
        self._held = []
        spent = {cause: round(seconds, 6) for cause, seconds in self.spent.items()}
        self.spent.clear()
        self._write({"event": event, "time": time.time(), **({} if step is None else {"step": step}), "spent": spent})

    def _write(self, event: dict[str, Any]) -> None:
        if not is_first_host():
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._file.write(b"\n")  # ends a line that a kill has torn
        self._file.write(json.dumps(event).encode() + b"\n")


@dataclasses.dataclass(frozen=True)
class Goodput:
    """Seconds since the first start: those of steps that counted, and the others by cause (see `CAUSES`)."""

    wall_s: float
    productive_s: float
    lost_s: dict[str, float]
    starts: int

    @property
    def share(self) -> float:
        """Productive time by all time."""
        return self.productive_s / self.wall_s if self.wall_s else 0.0

    def to_text(self) -> str:
        """One line, causes from the largest to the smallest."""
        lost = sorted(((s, cause.replace("_", "-")) for cause, s in self.lost_s.items() if s >= 0.0005 * self.wall_s))
        parts = ", ".join(f"{cause} {100 * s / self.wall_s:.1f} %" for s, cause in reversed(lost))
        starts = f"{self.starts} start{'s' if self.starts != 1 else ''}"
        return f"goodput {100 * self.share:.1f} % of {self.wall_s:.0f} s in {starts}; lost: {parts or 'nothing'}"


def read_goodput(folder: AnyPath) -> Goodput:
    """The account of a stage's folder so far; raises `UserError` when nothing was ever started in it."""
    return account(list(read_events(folder / FILE)))


def read_events(path: AnyPath) -> Iterator[dict[str, Any]]:
    """The events of a `goodput.jsonl`, without a torn line; none when there is no file."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:  # torn by a kill, or the empty line after one
            continue


def account(events: Sequence[dict[str, Any]]) -> Goodput:
    """Add up the events of all processes, in the order in which they were written."""
    require(len(events) > 0, "goodput events", "none", "the run was never started")
    events, total = numbered(events), dict.fromkeys((STEPS, *CAUSES), 0.0)
    for (before, event), kept in zip(pairwise(events), _resumed_from(events)[1:], strict=True):
        spent = event.get("spent", {})
        for cause, seconds in spent.items():
            total[cause] += seconds
        left = max(0.0, event["time"] - before["time"] - sum(spent.values()))
        cause, taken = LEFT_OVER[event["event"]], event["step"] - before["step"]
        lost = left * min(1.0, max(0.0, (event["step"] - kept) / taken)) if cause == STEPS and taken > 0 else 0.0
        total[cause] += left - lost
        total["redone"] += lost
    productive = total.pop(STEPS)
    starts = sum(event["event"] == "start" for event in events)
    return Goodput(events[-1]["time"] - events[0]["time"], productive, total, starts)


def numbered(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events that all have a step: that of the event before where they name none."""
    result, step = [], 0
    for event in events:
        step = event.get("step", step)
        result.append({**event, "step": step})
    return result


def _resumed_from(events: Sequence[dict[str, Any]]) -> list[float]:
    """For each event the least step from which a later process went on: what lies beyond was taken again."""
    result, least = [], math.inf
    for event in reversed(events):
        result.append(least)
        least = min(least, float(event["step"])) if event["event"] == "ready" else least
    return result[::-1]
