"""One process with eight devices for all programs that need them: jax is loaded once, and what is compiled stays.

`python -m tests.multidevice.eight` reads one JSON list `[program, *arguments]` per line and answers each with one line:
what the program returned and what it wrote, or why it failed. A program is `MODULE:FUNCTION` in this folder;
`python -m tests.multidevice.eight MODULE:FUNCTION ...` runs one alone and shows what it returned.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tests.multidevice.processes import ROOT, environment

DEVICES = 8


class Told(NamedTuple):
    """What a program returned, as JSON, and what it wrote."""

    result: Any
    wrote: str


class Eight:
    """Starts the process at the first call, and again when it is gone."""

    def __init__(self, log: Path) -> None:
        self.log, self.process = log, None

    def __call__(self, program: str, *arguments: str) -> Any:
        return self.ask(program, *arguments).result

    def ask(self, program: str, *arguments: str) -> Told:
        """Run a program to its end; one that raises fails the test with its traceback."""
        process = self.process = self.process or self._start()
        try:
            process.stdin.write(json.dumps([program, *arguments]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BaseException:  # a test that ran out of time: the answer would come to the next one
            self.close()
            raise
        if not line:
            self.close()
            raise AssertionError(f"{program}: the process ended\n{self.log.read_text()[-3000:]}")
        answer = json.loads(line)
        assert "failed" not in answer, f"{program}\n{answer['wrote'][-1500:]}\n{answer['failed'][-3000:]}"
        return Told(answer["result"], answer["wrote"])

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.multidevice.eight"]
        with self.log.open("a") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            return subprocess.Popen(command, cwd=ROOT, env=environment(DEVICES), text=True, **pipes)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def carried_out(program: str, *arguments: str) -> Any:
    """What a program of this folder returns."""
    import jax  # the side that only asks has its own devices

    assert len(jax.devices()) == DEVICES
    module, _, function = program.partition(":")
    return getattr(importlib.import_module(f"tests.multidevice.{module}"), function)(*arguments)


def answer(program: str, *arguments: str) -> dict[str, Any]:
    """The line that answers for one program."""
    wrote = io.StringIO()
    warnings = logging.StreamHandler(wrote)
    logging.getLogger().addHandler(warnings)  # beside those of others, who hold the real stderr
    with contextlib.redirect_stdout(wrote), contextlib.redirect_stderr(wrote):
        try:
            found = {"result": carried_out(program, *arguments)}
        except Exception:
            found = {"failed": traceback.format_exc()}
        finally:
            logging.getLogger().removeHandler(warnings)
    return found | {"wrote": wrote.getvalue()}


def serve(requests: TextIO, answers: TextIO) -> None:
    for line in requests:
        answers.write(json.dumps(answer(*json.loads(line))) + "\n")
        answers.flush()


def main(words: list[str]) -> None:
    if words:
        print(json.dumps(carried_out(*words)))
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what compiled code writes is no answer
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main(sys.argv[1:])
