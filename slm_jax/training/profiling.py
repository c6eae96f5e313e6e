"""A window of steps under JAX's profiler, in the form that TensorBoard's profile plugin opens."""

import contextlib
import re
from pathlib import Path
from typing import Any

import jax

from slm_jax.core.errors import UserError, require

FOLDER = "profile"


def parse_window(text: str) -> range:
    """`10:15` as the steps after step 10, up to and with step 15; raises `UserError` for anything else."""
    found = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", text)
    if found is None:
        raise UserError(f"profile is {text!r}: must be FIRST:LAST, two step numbers such as 10:15")
    first, last = int(found[1]), int(found[2])
    require(first < last, "profile", text, "the second step must come after the first")
    return range(first, last)


class Profiler:
    """Traces the steps of `window` (None: none) into `<folder>/profile`; leaving the block ends a trace too.

    A run that goes on in the middle of the window traces what is left of it.
    """

    def __init__(self, folder: Path, window: str | None) -> None:
        self._folder = folder / FOLDER
        self._window = range(0) if window is None else parse_window(window)
        self._tracing = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()

    def step(self, step: int, state: Any) -> contextlib.AbstractContextManager[Any]:
        """Around the step with this number (from 0); begins and ends the trace.

        The devices are waited for at both ends only, so that the window holds whole steps and no others.
        """
        inside = step in self._window
        if inside != self._tracing:
            jax.block_until_ready(state)
            if inside:
                self._folder.mkdir(parents=True, exist_ok=True)
                jax.profiler.start_trace(str(self._folder))
            else:
                jax.profiler.stop_trace()
            self._tracing = inside
        return jax.profiler.StepTraceAnnotation("train", step_num=step) if inside else contextlib.nullcontext()
