"""A training process that is killed or told to stop ends with the parameter bytes of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slm_jax.checkpoints.integrity import find_damage
from slm_jax.checkpoints.manager import Checkpoints

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "training" / "small_run.py"
PATIENCE_S = 280


def launch(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    errors = (folder / "stderr").open("a")
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder)], stderr=errors, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def finish(folder: Path) -> str:
    """Run to the end; the digest of the final state."""
    assert launch(folder).wait(PATIENCE_S) == 0, (folder / "stderr").read_text()
    return (folder / "digest").read_text()


def await_training(folder: Path, process: subprocess.Popen, old_lines: int = 0) -> None:
    """Block until the process has logged a line of its own."""
    log, end = folder / "metrics.jsonl", time.monotonic() + PATIENCE_S
    while not log.exists() or log.read_text().count("\n") <= old_lines:
        assert process.poll() is None and time.monotonic() < end, (folder / "stderr").read_text()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(digest, seconds from the first logged line to the end) of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = launch(folder)
    await_training(folder, process)
    start = time.monotonic()
    assert process.wait(PATIENCE_S) == 0, (folder / "stderr").read_text()
    return (folder / "digest").read_text(), time.monotonic() - start


def kill_once(folder: Path, span_s: float, seed: int) -> None:
    """Kill a run at a drawn time and run it again to the end; checks that it went on from its newest checkpoint."""
    process = launch(folder)
    await_training(folder, process)
    time.sleep(random.Random(seed).uniform(0, span_s))
    process.send_signal(signal.SIGKILL)
    process.wait()
    newest = Checkpoints(folder / "checkpoints").latest_step()
    finish(folder)
    resumed = folder / "resumed"
    assert (int(resumed.read_text()) if resumed.exists() else None) == newest


@pytest.mark.slow(seconds=50)
def test_kill_9_at_a_drawn_time_ends_with_the_same_bytes(undisturbed, tmp_path):
    digest, span_s = undisturbed
    seed = random.SystemRandom().randrange(2**32)
    kill_once(tmp_path / "run", 0.9 * span_s, seed)
    assert (tmp_path / "run" / "digest").read_text() == digest, f"killed at the time drawn from seed {seed}"


@pytest.mark.slow(seconds=300)
@pytest.mark.timeout(900)
def test_twenty_kills_at_drawn_times(undisturbed, tmp_path):
    digest, span_s = undisturbed
    seeds = [random.SystemRandom().randrange(2**32) for _ in range(20)]
    for index, seed in enumerate(seeds):
        kill_once(tmp_path / str(index), 0.9 * span_s, seed)
    ends = {seed: (tmp_path / str(index) / "digest").read_text() for index, seed in enumerate(seeds)}
    assert {seed: end for seed, end in ends.items() if end != digest} == {}


def kill_in_write(folder: Path) -> bool:
    """Kill a run when it has begun to write a checkpoint; whether it left one unfinished."""
    checkpoints, end = folder / "checkpoints", time.monotonic() + PATIENCE_S
    process = launch(folder)
    known = set(unfinished(checkpoints))  # by the process before: the next one clears it away
    while not set(unfinished(checkpoints)) - known:
        assert process.poll() is None and time.monotonic() < end, (folder / "stderr").read_text()
        known &= set(unfinished(checkpoints))
    process.kill()
    process.wait()
    return bool(unfinished(checkpoints))


def unfinished(checkpoints: Path) -> list[str]:
    return [path.name for path in checkpoints.glob("*.orbax-checkpoint-tmp*")]


@pytest.mark.timeout(600)
def test_kill_9_in_the_middle_of_a_checkpoint_lists_nothing_half_written(undisturbed, tmp_path):
    folder = tmp_path / "run"
    attempts = 0
    while not kill_in_write(folder):  # it was done before the signal came: at the next checkpoint, then
        attempts += 1
        assert attempts < 8
    checkpoints = Checkpoints(folder / "checkpoints")
    assert all(find_damage(checkpoints.path(step)) is None for step in checkpoints.steps())
    newest = checkpoints.latest_step()
    assert finish(folder) == undisturbed[0]
    resumed = folder / "resumed"
    assert (int(resumed.read_text()) if resumed.exists() else None) == newest
    assert not unfinished(checkpoints.folder)


@pytest.mark.slow(seconds=30)
def test_sigterm_saves_first_and_the_same_command_goes_on(undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = launch(folder)
    await_training(folder, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    saved = Checkpoints(folder / "checkpoints").latest_step()
    assert f"stopped by signal 15 after step {saved}" in (folder / "stderr").read_text()
    assert finish(folder) == undisturbed[0]
    assert int((folder / "resumed").read_text()) == saved
