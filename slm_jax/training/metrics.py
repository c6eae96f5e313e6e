"""Numbers of a run: JSON lines, TensorBoard and a bar."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.paths import AnyPath
from slm_jax.parallel.hosts import is_first_host

FILE = "metrics.jsonl"


def means(sums: Iterable[dict[str, tuple[Any, Any]]]) -> dict[str, float]:
    """Mean by name over several steps' (sum, count) pairs; a name that was never counted is left out."""
    totals: dict[str, list[float]] = {}
    for one in sums:
        for name, (total, count) in one.items():
            entry = totals.setdefault(name, [0.0, 0.0])
            entry[0] += float(np.asarray(total))
            entry[1] += float(np.asarray(count))
    return {name: total / count for name, (total, count) in totals.items() if count}


class MetricsLog:
    """Appends one JSON object per line to `metrics.jsonl`, and the same numbers to TensorBoard.

    Opened by a run that goes on after `step`, it first drops the lines of later steps and a torn last line, and
    tells TensorBoard to do so. Only the first host writes.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._file = self._board = None
        if is_first_host():
            folder.mkdir(parents=True, exist_ok=True)
            keep_until(folder / FILE, step)
            self._file = (folder / FILE).open("a", encoding="utf-8")
            self._board = _open_board(folder / "tensorboard", step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line; a number that is not finite becomes null, which JSON can hold."""
        if self._file is None or self._board is None:
            return
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **plain}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def keep_until(path: Path, step: int) -> None:
    """Keep the whole lines of `path` up to `step`."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)


def read_metrics(folder: AnyPath) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line torn by a kill
        return math.inf


def _open_board(folder: Path, step: int) -> Any:
    with _absent("torch"):  # four seconds of import, where it is installed, for tensors that it is never given here
        from tensorboardX import SummaryWriter  # here: its import takes longer than all others of this module together

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=30)


@contextlib.contextmanager
def _absent(package: str) -> Iterator[None]:
    """Nobody can import `package` in here, unless it was imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


class Progress:
    """A bar on stderr with rate and time left; compile time is reported apart and left out of the rate."""

    def __init__(self, name: str, step: int, steps: int, show: bool) -> None:
        from tqdm import tqdm

        quiet = not (show and is_first_host())
        interval = 0.5 if sys.stderr.isatty() else 20.0  # a log file wants few lines
        self._bar = tqdm(
            total=steps, initial=step, desc=name, unit="step", disable=quiet, mininterval=interval, dynamic_ncols=True
        )
        self._quiet = quiet

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """One step more."""
        self._bar.update()

    def show(self, values: dict[str, float]) -> None:
        """Put the losses beside the bar."""
        losses = {name: f"{value:.4g}" for name, value in values.items() if name.split("/")[-1] == "loss"}
        self._bar.set_postfix(losses, refresh=False)

    def say(self, text: str) -> None:
        """A line above the bar; the time since the last step does not count for the rate."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)
            self._bar.unpause()
