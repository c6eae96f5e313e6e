"""A whole run by two processes, joined as SLURM would have it: corpus, k-means units, language model."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from slm_jax.checkpoints.manager import restore_params
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.records import RecordSource
from slm_jax.training.run_folder import RunFolder
from tests.multidevice.processes import ROOT, finish, launch, said, wait

CONFIG = ROOT / "tests" / "faults" / "units_and_lm.py"


def command(folder: Path, *more: str) -> list[str]:
    options = ["--workdir", str(folder / "run"), "--data-dir", str(folder / "data"), "--lm.train.steps", "12", "--json"]
    return ["-m", "slm_jax", "train", str(CONFIG), *options, *more]


def slurm(index: int, job: int) -> dict[str, str]:
    """What `srun` sets for the processes of a job on one node; the port of the coordinator follows from its number."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


def by_two(folder: Path, logs: Path) -> None:
    job = random.SystemRandom().randrange(4096)
    environments = {f"env{index}": slurm(index, job) for index in range(2)}
    codes = wait(launch([command(folder, "--hosts", "auto")] * 2, logs, **environments))
    assert codes == [0, 0], said(logs, "err0")[-3000:] + said(logs, "err1")[-3000:]


def parameters(folder: Path) -> dict:
    return flatten_by_path(restore_params(folder / "run" / "stages" / "lm" / "checkpoints").trees["params"])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes, on a corpus that is not prepared yet."""
    folder = tmp_path_factory.mktemp("two")
    by_two(folder, folder / "logs")
    return folder


@pytest.mark.slow(seconds=60)
def test_only_the_first_host_speaks(two):
    stages = json.loads(said(two / "logs", "out0"))["stages"]
    assert [stage["stage"] for stage in stages] == ["units", "lm"]
    assert all(stage["seconds"] > 0 for stage in stages)
    assert "stage lm: done" in said(two / "logs", "err0")
    assert said(two / "logs", "out1") == ""
    ours = [line for line in said(two / "logs", "err1").splitlines() if "Gloo" not in line]
    assert ours == []


@pytest.mark.slow(seconds=20)
def test_a_run_that_is_done_is_skipped_by_all(two, tmp_path):
    by_two(two, tmp_path)
    assert [stage["seconds"] for stage in json.loads(said(tmp_path, "out0"))["stages"]] == [None, None]


@pytest.mark.slow(seconds=40)
def test_one_process_makes_the_same(two, tmp_path):
    (tmp_path / "data").symlink_to(two / "data")
    finish([command(tmp_path)], tmp_path / "logs", devices=2)
    for split in ("train", "dev", "test"):
        tables = [RecordSource(RunFolder(f / "run").stage("units").path / "units" / split) for f in (two, tmp_path)]
        ours, theirs = ([table[i]["units"].tolist() for i in range(len(table))] for table in tables)
        assert ours == theirs
        assert not list(tables[0].folder.parent.glob(".*"))
    params = [
        flatten_by_path(restore_params(f / "run" / "stages" / "lm" / "checkpoints").trees["params"])
        for f in (two, tmp_path)
    ]
    for path, leaf in params[0].items():
        np.testing.assert_allclose(leaf, params[1][path], atol=1e-5, rtol=0, err_msg=path)
