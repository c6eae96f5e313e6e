"""Start a program as several processes that form one machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240


def environment(devices: int) -> dict[str, str]:
    """That of a process with `devices` CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def free_address() -> str:
    """`localhost:PORT` that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def launch(commands: Sequence[Sequence[str]], logs: Path, devices: int = 1, **more: dict[str, str]) -> list:
    """One running process for each command (without the interpreter).

    They write to `out<i>` and `err<i>` in the folder `logs`. `more`: environment variables by process number, as
    `env0={...}`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running = []
    for index, command in enumerate(commands):
        with (logs / f"out{index}").open("w") as out, (logs / f"err{index}").open("w") as err:
            env = environment(devices) | more.get(f"env{index}", {})
            process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, stdout=out, stderr=err)
        running.append(process)
    return running


def wait(running: list, patience_s: float = PATIENCE_S) -> list[int]:
    """Exit codes; kills what is left when one of them takes too long."""
    try:
        return [process.wait(patience_s) for process in running]
    finally:
        for process in running:
            process.kill()


def said(logs: Path, name: str) -> str:
    """What a process wrote, `out0` for the output of the first."""
    return (logs / name).read_text(errors="replace")


def finish(commands: Sequence[Sequence[str]], logs: Path, devices: int = 1, patience_s: float = PATIENCE_S) -> None:
    """Run to the end; every process must end well."""
    codes = wait(launch(commands, logs, devices), patience_s)
    shown = "\n".join(said(logs, f"err{index}")[-3000:] for index in range(len(codes)))
    assert codes == [0] * len(codes), shown
