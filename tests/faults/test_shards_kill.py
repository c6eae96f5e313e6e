"""The command line that works in shards, killed with all of its workers: run again, it ends with the same bytes."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.counting_work import bytes_of

ROOT = Path(__file__).resolve().parents[2]
CORPUS = "world:hours=0.03,instruction_hours=0.01,processes=1,dev_share=0.2,test_share=0.2"
BEAM = importlib.util.find_spec("apache_beam") is not None
WITHOUT = (
    "Apache Beam wants another protobuf and pyarrow than the rest: `make beam` runs this in an environment of its own"
)
PATIENCE_S = 280


def launch(data: Path, out: Path, *options: str) -> subprocess.Popen:
    tasks = ["--tasks", "transcription", "instruction", "--per-shard", "4", "--voices", "2"]
    command = [sys.executable, "-m", "slm_jax", "prepare", CORPUS, *tasks, "--data-dir", str(data), "--out", str(out)]
    errors = out.with_suffix(".stderr").open("a")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, stderr=errors, stdout=errors, start_new_session=True
    )


def finish(data: Path, out: Path, *options: str) -> None:
    assert launch(data, out, *options).wait(PATIENCE_S) == 0, out.with_suffix(".stderr").read_text()


def kill(data: Path, out: Path, shards: int, *options: str) -> None:
    """Kill the process and whatever it started once so many shards are there, and a little later."""
    process, end = launch(data, out, *options), time.monotonic() + PATIENCE_S
    while len(list(out.glob("accounts/*/*.json"))) < shards:
        assert process.poll() is None and time.monotonic() < end, out.with_suffix(".stderr").read_text()
        time.sleep(0.01)
    time.sleep(random.SystemRandom().uniform(0, 0.2))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The prepared data, and the bytes of a folder that one process made in one go."""
    folder = tmp_path_factory.mktemp("shards")
    finish(folder / "data", folder / "out", "--workers", "1")
    return folder / "data", bytes_of(folder / "out")


@pytest.mark.slow(seconds=90)
@pytest.mark.timeout(900)
def test_two_workers_killed_twice(undisturbed, tmp_path):
    data, wanted = undisturbed
    for shards in (1, 4):
        kill(data, tmp_path / "out", shards, "--workers", "2")
        assert not (tmp_path / "out" / "report.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("accounts/*/*.json")}
    finish(data, tmp_path / "out", "--workers", "2")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished shards are kept"
    assert bytes_of(tmp_path / "out") == wanted


@pytest.mark.slow(seconds=120)
@pytest.mark.timeout(900)
@pytest.mark.skipif(not BEAM, reason=WITHOUT)
def test_beam_killed_twice(undisturbed, tmp_path):
    data, wanted = undisturbed
    beam = ("--runner", "direct", "--workers", "2")
    for shards in (1, 4):
        kill(data, tmp_path / "out", shards, *beam)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("accounts/*/*.json")}
    finish(data, tmp_path / "out", *beam)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished shards are kept"
    assert bytes_of(tmp_path / "out") == wanted
