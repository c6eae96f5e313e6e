"""What every test stands on: CPU devices, a compile cache, run-time shape checks and a time budget per directory."""

import gc
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: LLVM's costly passes, and the compiler of fusions, which builds a world of its
# own for each one, take two thirds of their time and bring them nothing.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "slm_jax" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path.home() / ".cache" / "slm_jax" / "hypothesis"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import settings
from jaxtyping import install_import_hook

from tests import artifacts

# Traced programs are many small objects that live long: to look through them after every 700 new ones is 4 % of a run
gc.set_threshold(50_000, 20, 20)

# Before any test imports the package: from here on every annotated shape and dtype is checked when called.
install_import_hook("slm_jax", "beartype.beartype")

# Compilation makes the first example slow, so no deadline; derandomized, so that a failure is the same everywhere.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=30, print_blob=True)
settings.load_profile("house")

BUDGET_S = {
    "adapters": 11,
    "assemblies": 20,
    "audio": 14,
    "cli": 37,
    "checkpoints": 6,
    "contracts": 102,
    "core": 3,
    "data": 54,
    "decoders": 14,
    "encoders": 38,
    "end_to_end": 35,
    "evaluation": 11,
    "faults": 26,
    "generation": 26,
    "golden": 11,
    "house": 10,
    "interop": 28,
    "judges": 22,
    "layouts": 4,
    "multidevice": 54,
    "nn": 40,
    "objectives": 43,
    "parallel": 4,
    "parity": 168,
    "pipelines": 10,
    "quantizers": 21,
    "reference": 19,
    "schemes": 4,
    "sequence_models": 30,
    "serving": 94,
    "systems": 70,
    "text": 7,
    "token_compression": 9,
    "training": 194,
    "workbench": 36,
}
"""Seconds of one worker per directory of tests, the slow ones not counted, with a cold compile cache, on a machine on
which `calibration_s` takes `CALIBRATION_S`. A directory that is not listed fails `tests/house/test_budget.py`."""
TOLERANCE = 3.0
"""In CI a run that takes more than this many times all its budgets fails; a directory alone is a warning.

How much of the other core a directory gets is chance: in one run they took from 1.2 to 2.8 times their budgets."""
CALIBRATION_S = 0.2

SLOW_S = 120
"""What a slow test is expected to take when its marker does not say, `@pytest.mark.slow(seconds=300)`."""

SLOWER = pytest.StashKey[float]()
"""How much slower than the machine of the budgets this one was when the run began."""
LATE = pytest.StashKey[bool]()
"""Whether the run took too long."""

spent_s: dict[str, float] = defaultdict(float)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> artifacts.Store:
    """Folders that are made once per session: `made_once("units", artifacts.with_units)`."""
    return artifacts.session_store(tmp_path_factory)


def directory_of(node_id: str) -> str:
    """`nn` for `tests/nn/test_conv.py::test_x`; `.` for a test beside this file."""
    parts = file_of(node_id).replace("\\", "/").split("/")
    parts = parts[1:] if parts[0] == "tests" else parts
    return parts[0] if len(parts) > 1 else "."


def file_of(node_id: str) -> str:
    """`tests/nn/test_conv.py` for a test in it."""
    return node_id.split("::")[0]


def budget_s(directory: str) -> float:
    """Seconds for a directory of tests; one that is not listed has none."""
    return BUDGET_S.get(directory, 0)


def calibration_s() -> float:
    """What a fixed piece of work takes here and now, the shortest of five: Python and products as compilers do them."""
    return min(_work_s() for _ in range(5))


def _work_s() -> float:
    start = time.perf_counter()
    found: dict[int, int] = {}
    for i in range(700_000):
        found[i % 4096] = found.get(i % 1024, 0) + i
    square = np.ones((384, 384), np.float32)
    for _ in range(60):
        square = np.tanh(square @ square / 384)
    return time.perf_counter() - start


def speed_factor() -> float:
    """How much slower than the machine of the budgets this one is; a quicker one counts as equal."""
    return max(1.0, calibration_s() / CALIBRATION_S)


def slow_seconds(item: pytest.Item) -> float:
    """What a slow test is expected to take; 0 for the others."""
    marker = item.get_closest_marker("slow")
    return marker.kwargs.get("seconds", SLOW_S) if marker else 0


def overruns(seconds: dict[str, float], factor: float = 1.0) -> list[str]:
    """One line for each directory that took more than `factor` times its budget."""
    lines = []
    for directory, taken in sorted(seconds.items()):
        budget = budget_s(directory)
        if taken > factor * budget:
            lines.append(f"tests/{directory}: {taken:.0f} s, budget {budget} s")
    return lines


def is_late(seconds: dict[str, float], factor: float) -> bool:
    """Whether all directories together took more than `factor` times their budgets."""
    return sum(seconds.values()) > factor * sum(map(budget_s, seconds))


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.stash[SLOWER] = speed_factor()


@pytest.hookimpl(trylast=True)  # when those that are not to run are out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Directories that take longest first, so that no worker is left alone with one of them at the end.

    Files of slow tests come in turns: those that had no time left in one run are near the start of another. The turn is
    `SLM_JAX_TESTS_TURN`, which CI takes from the number of commits.
    """
    turns = turn_of({file_of(item.nodeid) for item in items if slow_seconds(item)})
    items.sort(key=lambda item: (turns.get(file_of(item.nodeid), -1), -budget_s(directory_of(item.nodeid))))


def turn_of(files: set[str]) -> dict[str, int]:
    """The place of every file of slow tests in this run: by name, begun elsewhere every turn."""
    turn, count = int(os.environ.get("SLM_JAX_TESTS_TURN", "0")), len(files)
    stride = max(1, count // 3)  # a run that gets through a third of them is followed by one of the next third
    return {name: (place - turn * stride) % count for place, name in enumerate(sorted(files))}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a slow test that would not fit in what is left of the run's time."""
    end, slow_s = os.environ.get("SLM_JAX_TESTS_END"), slow_seconds(item)
    if end and slow_s and time.time() + slow_s > float(end):
        pytest.skip("no time left in this run; `make slow` alone has no limit")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "slow" not in report.keywords:
        spent_s[directory_of(report.nodeid)] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    in_worker = hasattr(session.config, "workerinput")  # the controller of pytest-xdist adds up what workers report
    if os.environ.get("CI") and not in_worker and session.exitstatus == 0:
        slower = max(session.config.stash.get(SLOWER, 1.0), speed_factor())
        session.config.stash[LATE] = is_late(spent_s, TOLERANCE * slower)
        if session.config.stash[LATE]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    late = overruns(spent_s)
    if late:
        failed = terminalreporter.config.stash.get(LATE, False)
        terminalreporter.section("over the time budget (tests/conftest.py)", red=failed, yellow=not failed)
        whole = f"all: {sum(spent_s.values()):.0f} s, budget {sum(map(budget_s, spent_s))} s"
        whole += ": too long, so that this run fails" if failed else ""
        for line in (*late, whole):
            terminalreporter.line(line)
