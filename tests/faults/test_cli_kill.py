"""The real command line, killed or told to stop: run again, it ends with the bytes of a run that nothing disturbed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints, restore_params

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "tests" / "faults" / "units_and_lm.py"
PATIENCE_S = 280


def launch(folder: Path, data: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "slm_jax", "train", str(CONFIG), "--workdir", str(folder), "--data-dir", str(data)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    errors = folder.with_suffix(".stderr").open("a")
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=errors)


def finish(folder: Path, data: Path) -> None:
    assert launch(folder, data).wait(PATIENCE_S) == 0, folder.with_suffix(".stderr").read_text()


def final_bytes(folder: Path) -> dict[str, bytes]:
    """The bytes of all parameters, and of their slow copy, of the last step."""
    checkpoints = folder / "stages" / "lm" / "checkpoints"
    assert Checkpoints(checkpoints).latest_step() == 200
    trees = {item: restore_params(checkpoints, item=item).trees[item] for item in ("params", "ema")}
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in jax.tree.leaves_with_path(trees)}


def await_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    """Block until the language model has saved once."""
    checkpoints, end = Checkpoints(folder / "stages" / "lm" / "checkpoints"), time.monotonic() + PATIENCE_S
    while checkpoints.latest_step() is None:
        assert process.poll() is None, folder.with_suffix(".stderr").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(folder of prepared data, final bytes, seconds) of a run that nothing disturbs; it lies beside the data."""
    folder = tmp_path_factory.mktemp("cli")
    finish(folder / "first", folder / "data")  # prepares the corpus and fills the compile cache
    start = time.monotonic()
    finish(folder / "timed", folder / "data")
    seconds = time.monotonic() - start
    wanted = final_bytes(folder / "first")
    assert final_bytes(folder / "timed") == wanted
    return folder / "data", wanted, seconds


def kill_at(seconds: float, folder: Path, data: Path) -> None:
    process = launch(folder, data)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(folder, data)


@pytest.mark.slow(seconds=90)
@pytest.mark.timeout(600)
def test_kill_9_at_a_drawn_time(undisturbed, tmp_path):
    data, wanted, seconds = undisturbed
    drawn = random.SystemRandom().uniform(0, seconds)
    kill_at(drawn, tmp_path / "run", data)
    assert final_bytes(tmp_path / "run") == wanted, f"killed {drawn:.2f} s after the start"


@pytest.mark.slow(seconds=400)
@pytest.mark.timeout(1800)
def test_kill_9_at_twenty_drawn_times(undisturbed, tmp_path):
    data, wanted, seconds = undisturbed
    for number in range(20):
        drawn = random.SystemRandom().uniform(0, seconds)
        kill_at(drawn, tmp_path / f"run{number}", data)
        assert final_bytes(tmp_path / f"run{number}") == wanted, f"killed {drawn:.2f} s after the start"


@pytest.mark.slow(seconds=40)
@pytest.mark.timeout(600)
def test_sigterm_saves_first_and_names_its_exit(undisturbed, tmp_path):
    data, wanted, _ = undisturbed
    process = launch(tmp_path / "run", data)
    await_checkpoint(tmp_path / "run", process)
    process.send_signal(signal.SIGTERM)
    code = process.wait(PATIENCE_S)
    saved = Checkpoints(tmp_path / "run" / "stages" / "lm" / "checkpoints").latest_step()
    if code != 0:  # it had not come to its end before the signal
        assert code == 143
        assert f"after step {saved}" in (tmp_path / "run.stderr").read_text()
    finish(tmp_path / "run", data)
    assert final_bytes(tmp_path / "run") == wanted


@pytest.mark.slow(seconds=60)
@pytest.mark.timeout(600)
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(undisturbed, tmp_path):
    data, wanted, _ = undisturbed
    run = shutil.copytree(data.parent / "timed", tmp_path / "run")
    checkpoints = Checkpoints(run / "stages" / "lm" / "checkpoints")
    (run / "stages" / "lm" / "done.json").unlink()  # as if it had been stopped before it could say that it is done
    arrays = max((p for p in checkpoints.path(200).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    finish(run, data)
    assert final_bytes(run) == wanted
    said = run.with_suffix(".stderr").read_text()
    assert arrays.name in said
    assert "180" in said
