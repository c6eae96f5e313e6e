"""Run folders: what a stage ate and made, and one writer at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slm_jax.core.errors import UserError
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.spikes import SpikeConfig

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from slm_jax.training.run_folder import RunFolder
with RunFolder(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_stage_is_begun_done_and_verified(tmp_path):
    stage = RunFolder(tmp_path).stage("units")
    assert not stage.is_done()
    stage.begin(OptimizerConfig(), {"corpus": "abc"})
    stage.begin(OptimizerConfig(), {"corpus": "abc"})
    assert stage.begun()["config"]["learning_rate"] == OptimizerConfig().learning_rate
    (stage.path / "table").mkdir()
    (stage.path / "table" / "a.bin").write_bytes(b"123")
    (stage.path / "centroids.npy").write_bytes(b"456")
    hashed = stage.finish(["table", "centroids.npy"])
    assert stage.is_done()
    assert stage.artifact_hash() == hashed == RunFolder(tmp_path).stage("units").artifact_hash()
    stage.verify()
    (stage.path / "table" / "a.bin").write_bytes(b"124")
    with pytest.raises(UserError, match=r"table/a.bin.*has changed"):
        stage.verify()
    assert stage.finish(["table", "centroids.npy"]) != hashed
    (stage.path / "centroids.npy").unlink()
    with pytest.raises(UserError, match=r"centroids.npy.*is missing"):
        stage.verify()


def test_other_settings_or_inputs_are_refused_with_the_difference(tmp_path):
    stage = RunFolder(tmp_path).stage("units")
    stage.begin(OptimizerConfig(), {"corpus": "abc"})
    with pytest.raises(UserError, match=r"config.clip: 1.0 -> 0.5.*--workdir"):
        stage.begin(OptimizerConfig(clip=0.5), {"corpus": "abc"})
    with pytest.raises(UserError, match=r"consumed.corpus: abc -> def"):
        stage.begin(OptimizerConfig(), {"corpus": "def"})
    with pytest.raises(UserError, match=r"consumed.features: \(absent\) -> x"):
        stage.begin(OptimizerConfig(), {"corpus": "abc", "features": "x"})


def test_free_fields_may_change_and_fields_that_came_later_are_at_their_defaults(tmp_path):
    stage, config = RunFolder(tmp_path).stage("lm"), TrainConfig(steps=10)
    stage.begin(config, {})
    stage.begin(config.replace(log_every=3, profile="2:4", spike=SpikeConfig()), {})
    record = json.loads((stage.path / "stage.json").read_text())
    for late in ("profile", "spike"):
        del record["config"][late]
    (stage.path / "stage.json").write_text(json.dumps(record))
    stage.begin(config, {})
    with pytest.raises(UserError, match=r"config.seed: 0 -> 1"):
        stage.begin(config.replace(seed=1), {})


def test_wrong_names_and_artifacts_are_refused(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("", "../other", "a/b", ".hidden"):
        with pytest.raises(UserError, match="stage name"):
            run.stage(name)
    stage = run.stage("units")
    with pytest.raises(UserError, match="not done"):
        stage.artifact_hash()
    stage.begin(OptimizerConfig(), {})
    (tmp_path / "outside").write_text("x")
    for artifact in ("absent", "../../outside"):
        with pytest.raises(UserError, match="artifact"):
            stage.finish([artifact])
    (stage.path / "stage.json").write_text('{"config":')
    with pytest.raises(UserError, match="damaged"):
        stage.begin(OptimizerConfig(), {})


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_stale_lock(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"), RunFolder(tmp_path).lock():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    time.sleep(0.05)
    with RunFolder(tmp_path).lock(), pytest.raises(UserError, match="in use"), RunFolder(tmp_path).lock():
        pass
