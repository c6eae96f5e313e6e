"""Two processes train as one machine; one is killed, told to stop, or fails: the other ends too, and both can go on."""

import fcntl
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.parallel import hosts
from tests.artifacts import with_units
from tests.multidevice.processes import ROOT, finish, free_address, launch, said, wait

CONFIG = ROOT / "tests" / "faults" / "units_and_lm.py"
STEPS = 120
BOUND_S = 90
"""By then the other host must have ended: JAX takes a host for lost after 60 s without a sign of it."""


def command(folder: Path, *more: str) -> list[str]:
    """Trains the run in `folder / "run"` with the corpus in `folder / "data"`."""
    options = ["--workdir", str(folder / "run"), "--data-dir", str(folder / "data"), "--lm.train.steps", str(STEPS)]
    return ["-m", "slm_jax", "train", str(CONFIG), *options, *more]


def by_two(folder: Path) -> list[list[str]]:
    join = ("--coordinator", free_address(), "--processes", "2", "--index")
    return [command(folder, *join, str(index)) for index in range(2)]


def saved(folder: Path) -> Checkpoints:
    return Checkpoints(folder / "run" / "stages" / "lm" / "checkpoints")


def final_bytes(folder: Path) -> dict[str, bytes]:
    restored = restore_params(saved(folder).folder)
    assert restored.step == STEPS
    leaves = jax.tree.leaves_with_path(restored.trees["params"])
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def launch_and_await_checkpoint(folder: Path, logs: Path) -> list:
    """Two running hosts that have just saved a step newer than there was."""
    before = saved(folder).latest_step()
    running = launch(by_two(folder), logs)
    end = time.monotonic() + 200
    while saved(folder).latest_step() == before:
        assert all(process.poll() is None for process in running), said(logs, "err0")
        assert time.monotonic() < end
        time.sleep(0.02)
    return running


@pytest.fixture(scope="module")
def prepared(made_once):
    """A folder with a corpus, and a run whose units are done."""
    return made_once("units", with_units)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """The parameters that two hosts end with when nothing disturbs them."""
    folder = copied(prepared, tmp_path_factory.mktemp("undisturbed"))
    finish(by_two(folder), folder / "logs")
    return final_bytes(folder)


@pytest.fixture
def folder(prepared, tmp_path):
    """One's own copy of the run whose units are done."""
    return copied(prepared, tmp_path)


def copied(prepared: Path, folder: Path) -> Path:
    shutil.copytree(prepared / "run", folder / "run")
    (folder / "data").symlink_to(prepared / "data")
    return folder


@pytest.mark.slow(seconds=150)
@pytest.mark.timeout(600)
def test_stopped_and_killed_in_turn_they_end_with_the_bytes_of_an_undisturbed_run(undisturbed, folder):
    running = launch_and_await_checkpoint(folder, folder / "stopped")
    running[1].send_signal(signal.SIGTERM)
    assert wait(running, BOUND_S) == [143, 143]
    assert f"after step {saved(folder).latest_step()}; saved" in said(folder / "stopped", "err0")
    assert "saved" not in said(folder / "stopped", "err1")

    killed(folder, victim=1)
    killed(folder, victim=0)
    finish(by_two(folder), folder / "finished")
    assert final_bytes(folder) == undisturbed


def killed(folder: Path, victim: int) -> None:
    """Kill one of two hosts at a drawn time after a save; the other must end by itself, and say why."""
    logs = folder / f"killed{victim}"
    running = launch_and_await_checkpoint(folder, logs)
    time.sleep(random.SystemRandom().uniform(0, 0.2))
    running[victim].send_signal(signal.SIGKILL)
    codes = wait(running, BOUND_S)
    said_by_other = said(logs, f"err{1 - victim}")
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] not in (0, -signal.SIGKILL), said_by_other
    # the second line is JAX's own, for a host that lost the first one
    assert any(line in said_by_other for line in ("another host has vanished", "another task died")), said_by_other


@pytest.mark.slow(seconds=600)
@pytest.mark.timeout(2400)
def test_killed_at_five_drawn_times(undisturbed, folder):
    """At any moment, also while they start, join and save; each time the other one ends too."""
    drawn = random.SystemRandom()
    for number in range(5):
        running = launch(by_two(folder), folder / f"killed{number}")
        time.sleep(drawn.uniform(0, 15))
        victim = drawn.randrange(2)
        running[victim].send_signal(signal.SIGKILL)
        wait(running, hosts.JOIN_S + BOUND_S)  # one that is alone waits for the other to join
    finish(by_two(folder), folder / "finished")
    assert final_bytes(folder) == undisturbed


def test_a_host_that_fails_says_why_to_the_other(tmp_path):
    first, second = by_two(tmp_path)
    codes = wait(launch([first, [*second, "--lm.train.seed", "1"]], tmp_path / "logs"), BOUND_S)
    assert codes == [1, 2]
    assert said(tmp_path / "logs", "err1").startswith("error: the command of this host is")
    assert "\nerror: host 1 has ended: the command of this host is" in said(tmp_path / "logs", "err0")


def test_what_the_first_host_cannot_do_is_an_error_on_all(tmp_path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        codes = wait(launch(by_two(tmp_path), tmp_path / "logs"), BOUND_S)
    assert codes == [2, 2]
    for index in range(2):
        lines = said(tmp_path / "logs", f"err{index}").splitlines()
        assert [line for line in lines if "is in use by" in line and line.startswith("error: ")]
