"""The reference system's run: killed and gone on with, on eight devices, by two processes, planned for a TPU slice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.cli import plan
from slm_jax.core.trees import flatten_by_path
from slm_jax.training.gradient_stage import trained
from slm_jax.training.run_folder import RunFolder
from tests.multidevice.processes import ROOT, environment, finish, said
from tests.multidevice.test_hosts_cli import slurm
from tests.reference.drawn import write_lm

STEPS = 12
MESH = {"data": "1", "fsdp": "-1", "rules": "fsdp"}
STAGES = ("encoder", "answers", "duet")
FSDP = [word for stage in STAGES for name, value in MESH.items() for word in (f"--{stage}.train.mesh.{name}", value)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config file, beside the folder of the text LM and that of the data."""
    folder = tmp_path_factory.mktemp("reference")
    write_lm(folder / "lm")
    file = folder / "config.py"
    call = f"listener.config({str(folder / 'lm')!r}, steps={STEPS})"
    file.write_text(f"from tests.reference import listener\n\nconfig = {call}\n")
    return file


@pytest.fixture(scope="module")
def undisturbed(config):
    """Variables of all stages of a run that nothing disturbs."""
    finish([command(config, config.parent / "run")], config.parent / "logs")
    return variables(config.parent / "run")


def command(config: Path, run: Path, *more: str) -> list[str]:
    return [
        "-m",
        "slm_jax",
        "train",
        str(config),
        "--workdir",
        str(run),
        "--data-dir",
        str(config.parent / "data"),
        *more,
    ]


def variables(run: Path) -> dict[str, np.ndarray]:
    """Every trained leaf of every stage, by stage and path."""
    found = {}
    for stage in STAGES:
        leaves = flatten_by_path(trained(RunFolder(run).stage(stage))[1])
        found |= {f"{stage}/{path}": np.asarray(leaf) for path, leaf in leaves.items()}
    return found


def assert_same(run: Path, wanted: dict[str, np.ndarray], tolerance: float) -> None:
    got = variables(run)
    assert got.keys() == wanted.keys() and any("/lora/" in path for path in got)
    for path, leaf in wanted.items():
        np.testing.assert_allclose(got[path], leaf, atol=tolerance, rtol=0, err_msg=path)


@pytest.mark.slow(seconds=90)
@pytest.mark.timeout(600)
def test_killed_it_ends_with_the_same_bytes(config, undisturbed, tmp_path):
    run = tmp_path / "run"
    env = {**environment(1)}
    process = subprocess.Popen([sys.executable, *command(config, run)], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    checkpoints, end = run / "stages" / "answers" / "checkpoints", time.monotonic() + 240
    while Checkpoints(checkpoints).latest_step() is None:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    time.sleep(random.SystemRandom().uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish([command(config, run)], tmp_path / "logs")
    assert_same(run, undisturbed, 0.0)


@pytest.mark.slow(seconds=90)
@pytest.mark.timeout(600)
def test_eight_devices_make_the_same(config, undisturbed, tmp_path):
    finish([command(config, tmp_path / "run", *FSDP)], tmp_path / "logs", devices=8)
    assert_same(tmp_path / "run", undisturbed, 1e-3)


@pytest.mark.slow(seconds=90)
@pytest.mark.timeout(600)
def test_two_processes_make_the_same(config, undisturbed, tmp_path):
    job = random.SystemRandom().randrange(4096)
    commands = [command(config, tmp_path / "run", "--hosts", "auto")] * 2
    logs = tmp_path / "logs"
    logs.mkdir()
    running = []
    for index in range(2):
        env = environment(1) | slurm(index, job)
        with (logs / f"err{index}").open("w") as errors:
            running.append(subprocess.Popen([sys.executable, *commands[index]], cwd=ROOT, env=env, stderr=errors))
    assert [process.wait(300) for process in running] == [0, 0], said(logs, "err0")[-2000:] + said(logs, "err1")[-2000:]
    assert_same(tmp_path / "run", undisturbed, 1e-3)


@pytest.mark.slow(seconds=40)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the TPU compiler comes for x86_64 only")
def test_it_is_planned_for_a_slice(config):
    pytest.importorskip("libtpu")
    (found,) = plan.main([str(config), "--topology", "v5e:2x2", "--stage", "answers", *FSDP])["stages"]
    assert found["fits"]
