"""What every test stands on: CPU devices, a compile cache, run-time shape checks and a time budget per directory."""

import os
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: LLVM's costly passes take a third of their time and bring them nothing.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "slm_jax" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path.home() / ".cache" / "slm_jax" / "hypothesis"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import settings
from jaxtyping import install_import_hook

# Before any test imports the package: from here on every annotated shape and dtype is checked when called.
install_import_hook("slm_jax", "beartype.beartype")

# Compilation makes the first example slow, so no deadline; derandomized, so that a failure is the same everywhere.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=30, print_blob=True)
settings.load_profile("house")

BUDGET_S = {
    "assemblies": 15,
    "audio": 33,
    "cli": 32,
    "checkpoints": 16,
    "contracts": 108,
    "core": 10,
    "data": 45,
    "decoders": 46,
    "encoders": 40,
    "end_to_end": 112,
    "evaluation": 24,
    "faults": 135,
    "generation": 22,
    "house": 12,
    "interop": 30,
    "multidevice": 108,
    "nn": 66,
    "objectives": 64,
    "parallel": 12,
    "parity": 130,
    "quantizers": 18,
    "sequence_models": 16,
    "serving": 24,
    "systems": 6,
    "text": 6,
    "token_compression": 10,
    "training": 150,
    "workbench": 60,
}
"""Seconds per directory of tests, the slow ones not counted, on two cores with a cold compile cache."""
DEFAULT_BUDGET_S = 20
TOLERANCE = 2.0
"""In CI a directory that takes more than this many times its budget fails the run; below that it is a warning."""

SLOW_S = 120
"""What a slow test is expected to take when its marker does not say, `@pytest.mark.slow(seconds=300)`."""

spent_s: dict[str, float] = defaultdict(float)


def directory_of(node_id: str) -> str:
    """`nn` for `tests/nn/test_conv.py::test_x`; `.` for a test beside this file."""
    parts = node_id.split("::")[0].replace("\\", "/").split("/")
    parts = parts[1:] if parts[0] == "tests" else parts
    return parts[0] if len(parts) > 1 else "."


def overruns(seconds: dict[str, float], factor: float = 1.0) -> list[str]:
    """One line for each directory that took more than `factor` times its budget."""
    lines = []
    for directory, taken in sorted(seconds.items()):
        budget = BUDGET_S.get(directory, DEFAULT_BUDGET_S)
        if taken > factor * budget:
            lines.append(f"tests/{directory}: {taken:.0f} s, budget {budget} s")
    return lines


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a slow test that would not fit in what is left of the run's time."""
    end = os.environ.get("SLM_JAX_TESTS_END")
    marker = item.get_closest_marker("slow")
    if end and marker and time.time() + marker.kwargs.get("seconds", SLOW_S) > float(end):
        pytest.skip("no time left in this run; `make slow` alone has no limit")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "slow" not in report.keywords:
        spent_s[directory_of(report.nodeid)] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    in_worker = hasattr(session.config, "workerinput")  # the controller of pytest-xdist adds up what workers report
    if os.environ.get("CI") and not in_worker and session.exitstatus == 0 and overruns(spent_s, TOLERANCE):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    late = overruns(spent_s)
    if late:
        terminalreporter.section("over the time budget (tests/conftest.py)", yellow=True)
        for line in late:
            terminalreporter.line(line)
