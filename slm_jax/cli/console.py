"""What a verb prints, and how its errors end: people read stdout and stderr, machines read `--json`."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from slm_jax.core.errors import UserError

TRACEBACK_SWITCH = "SLM_JAX_TRACEBACK"
INTERRUPTED = 130
PIPE_CLOSED = 141


class Failed(Exception):
    """Raised by a verb that ran well and judged badly: `result` is printed as usual, the exit code is 1."""

    def __init__(self, result: Any) -> None:
        super().__init__("the verdict is negative")
        self.result = result


def say(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Text columns, left-aligned; numbers are aligned to the right."""
    cells = [[_cell(value) for value in row] for row in ([header, *rows] if header else rows)]
    if not cells:
        return ""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(widths))]
    lines = [
        "  ".join(
            text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numeric, strict=True)
        )
        for row in cells
    ]
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def run_verb(verb: Callable[[list[str]], Any], argv: list[str]) -> int:
    """Run a verb and turn its end into an exit code.

    A verb prints for people and returns its result, a JSON value or None. With `--json` in `argv` everything it (or
    a library written in C++) prints goes to stderr, and stdout gets the result alone, from the first process only.
    A verb whose judgement is negative raises `Failed`.
    """
    code = 0
    try:
        if "--json" in argv:
            with _stdout_reserved() as out:
                result, code = _judged(verb, argv)
                if _is_first_process():
                    print(json.dumps(result, ensure_ascii=False, indent=2, sort_keys=False), file=out, flush=True)
        else:
            _, code = _judged(verb, argv)
            sys.stdout.flush()  # a closed pipe shows here, and not in Python's last breath
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except UserError as error:
        return _fail(error, 2)
    except BrokenPipeError:  # the reader of our output has enough, as in `doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes at exit
        return PIPE_CLOSED
    except OSError as error:  # full disk, missing permission
        return _fail(error, 1)
    except SystemExit as stop:  # `--help` of tyro, or a verb with an exit code of its own
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return code


def _judged(verb: Callable[[list[str]], Any], argv: list[str]) -> tuple[Any, int]:
    """The result of a verb and its exit code."""
    try:
        return verb(argv), 0
    except Failed as failed:
        return failed.result, 1


def _fail(error: Exception, code: int) -> int:
    if os.environ.get(TRACEBACK_SWITCH) == "1":
        traceback.print_exception(error)
    hint = "" if isinstance(error, UserError) else f" ({TRACEBACK_SWITCH}=1 shows where)"
    say(f"error: {error}{hint}")
    return code


@contextlib.contextmanager
def _stdout_reserved() -> Iterator[TextIO]:
    """A private stdout, while file descriptor 1 writes to stderr: C++ libraries print to the descriptor."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(os.dup(kept), "w", encoding="utf-8") as out, contextlib.redirect_stdout(sys.stderr):
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _is_first_process() -> bool:
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
