"""Checkpoints and runs in `gs://`, against an emulator: what is listed is whole, and resuming gives the same bytes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.integrity import SEAL, find_damage
from slm_jax.checkpoints.manager import COMMITTED, Checkpoints, restore_params
from slm_jax.checkpoints.model_folder import open_params
from slm_jax.core.errors import UserError
from slm_jax.core.paths import as_path, entries, files_below
from slm_jax.core.trees import flatten_by_path
from slm_jax.training.goodput import read_goodput
from slm_jax.training.metrics import read_metrics
from slm_jax.training.stops import Interrupted
from tests.bucket import bucket, environment, skip_without
from tests.checkpoints.test_manager import abstract, fill, same, trees
from tests.training.small_run import CONFIG, digest, start
from tests.training.test_loop import Stopping

__all__ = ["bucket"]
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = CONFIG.replace(steps=20)
KILLED = """
import sys
from tests.training.small_run import CONFIG, SeededBatches, start
start(sys.argv[1], CONFIG.replace(steps=20), batches=SeededBatches(delay_s=0.02))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    skip_without()
    return digest(start(tmp_path_factory.mktemp("undisturbed"), SETTINGS).trees())


@pytest.mark.slow(seconds=20)
def test_a_run_is_stopped_and_goes_on_to_the_bytes_of_one_on_a_disk(bucket, undisturbed, caplog):
    with pytest.raises(Interrupted, match="saved in gs://"):
        start(bucket, SETTINGS, batches=Stopping(11, 15))
    checkpoints = Checkpoints(f"{bucket}/checkpoints")
    assert checkpoints.steps() == [5, 10, 12]
    assert [find_damage(checkpoints.path(step)) for step in checkpoints.steps()] == [None] * 3
    newest = max(files_below(checkpoints.path(12) / "train" / "ocdbt.process_0" / "d"), key=lambda p: p.stat().length)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    state = start(bucket, SETTINGS)
    assert newest.name in caplog.text
    assert digest(state.trees()) == undisturbed
    assert checkpoints.steps() == [10, 15, 20], "the three newest stay"
    assert entries(checkpoints.folder / "00000012.damaged")
    assert [line["step"] for line in read_metrics(as_path(bucket))] == [5, 10, 15, 20]
    account = read_goodput(as_path(bucket))
    assert (account.starts, account.lost_s["redone"] > 0) == (2, True)
    assert files_below(as_path(bucket) / "tensorboard")


@pytest.mark.slow(seconds=20)
def test_kill_9_in_the_middle_of_a_checkpoint_lists_nothing_half_written(bucket, undisturbed):
    folder, variables = as_path(bucket) / "checkpoints", {**os.environ, **environment(), "PYTHONPATH": str(ROOT)}
    if extra := os.environ.get("PYTHONPATH"):
        variables["PYTHONPATH"] += os.pathsep + extra
    process = subprocess.Popen([sys.executable, "-c", KILLED, bucket], env=variables, stderr=subprocess.PIPE)
    end = time.monotonic() + 280
    while not (begun := [path for path in entries(folder) if not (path / COMMITTED).exists()]):
        assert process.poll() is None and time.monotonic() < end, process.stderr.read().decode()
    process.kill()
    process.wait()
    half = begun[0]
    checkpoints = Checkpoints(folder)
    if not (half / COMMITTED).exists():  # else it was done before the signal came
        assert int(half.name) not in checkpoints.steps()
    assert all(find_damage(checkpoints.path(step)) is None for step in checkpoints.steps())
    assert digest(start(bucket, SETTINGS).trees()) == undisturbed
    assert all((path / COMMITTED).exists() for path in entries(folder))


@pytest.mark.slow(seconds=10)
def test_what_is_not_committed_is_neither_listed_nor_kept(bucket):
    checkpoints = fill(bucket, [1, 2, 3])
    (checkpoints.path(3) / COMMITTED).unlink()
    assert checkpoints.steps() == [1, 2]
    restored = checkpoints.restore_latest(abstract())
    assert restored.step == 2
    same(restored.trees, trees(2))
    fill(bucket, [4], keep=2)
    assert checkpoints.steps() == [2, 4]
    assert sorted(path.name for path in entries(as_path(bucket))) == ["00000002", "00000004"]
    (checkpoints.path(4) / SEAL).unlink()
    assert restore_params(bucket).step == 2


@pytest.mark.slow(seconds=5)
def test_arrays_are_read_in_parts(bucket):
    fill(bucket, [1])
    stored = flatten_by_path(open_params(bucket, "params"))["a/kernel"]
    np.testing.assert_array_equal(stored[3], np.asarray(trees(1)["params"]["a"]["kernel"][3]))
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(trees(1)["params"]["a"]["kernel"]))
    assert jax.process_count() == 1


def test_other_stores_are_refused_for_checkpoints():
    from tests.core import memory_scheme

    memory_scheme.clear()
    with pytest.raises(UserError, match=r"checkpoint folder is 'memory://bucket/run': must be a folder here or"):
        Checkpoints("memory://bucket/run")
