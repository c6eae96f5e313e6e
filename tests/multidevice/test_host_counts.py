"""The unit LM stage on other numbers of hosts: the same global batches, packed and mixed, and the same parameters."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.records import write_records
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, units_row
from slm_jax.training.run_folder import RunFolder
from tests.multidevice.processes import finish, free_address

pytestmark = pytest.mark.slow(seconds=90)
PROGRAM = "tests/multidevice/unit_lm_run.py"


def new_run(folder: Path) -> Path:
    """A run whose units stage is done, with drawn units."""
    config = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=16))
    stage, rng = RunFolder(folder).stage("units"), np.random.default_rng(0)
    stage.begin(config, {})
    for split in ("train", "dev", "test"):
        rows = [units_row(str(i), rng.integers(0, 16, size=rng.integers(4, 28))) for i in range(40)]
        write_records(config.records(stage, split), rows)
    stage.finish(["units"])
    return folder


def train(folder: Path, processes: int, devices: int) -> None:
    address = free_address()
    commands = [[PROGRAM, str(folder), address, str(processes), str(index)] for index in range(processes)]
    finish(commands, folder / "logs", devices)


def checkpoints(folder: Path) -> Path:
    return folder / "stages" / "lm" / "checkpoints"


def batches(folder: Path, processes: int) -> dict[str, np.ndarray]:
    """Global batches, `[steps, rows, ...]`, out of what each process read."""
    parts = [np.load(folder / f"batches{index}.npz") for index in range(processes)]
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0].files}


def parameters(folder: Path) -> dict[str, np.ndarray]:
    restored = restore_params(checkpoints(folder))
    assert restored.step == 8
    return {path: np.asarray(leaf) for path, leaf in flatten_by_path(restored.trees["params"]).items()}


def assert_near(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_allclose(found[path], expected[path], atol=1e-5, rtol=0, err_msg=path)


@pytest.fixture(scope="module")
def one(eight, tmp_path_factory):
    """A whole run of one process with eight devices."""
    folder = new_run(tmp_path_factory.mktemp("hosts") / "one")
    eight("unit_lm_run:main", str(folder))
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A whole run of two processes with four devices each."""
    folder = new_run(tmp_path_factory.mktemp("hosts") / "two")
    train(folder, processes=2, devices=4)
    return folder


def test_two_hosts_read_the_batches_of_one_and_learn_the_same(one, two):
    expected, found = batches(one, 1), batches(two, 2)
    assert len(expected["ids"]) == 8
    assert expected["segment_ids"].max() > 1
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert_near(parameters(two), parameters(one))


@pytest.mark.parametrize("processes, devices", [(1, 4), (4, 1)])
def test_saved_on_two_hosts_resumed_on_one_and_on_four(one, two, tmp_path, processes, devices):
    folder = tmp_path / "moved"
    shutil.copytree(two, folder)
    shutil.rmtree(Checkpoints(checkpoints(folder)).path(8))
    (folder / "stages" / "lm" / "done.json").unlink()
    train(folder, processes, devices)
    expected, found = batches(one, 1), batches(folder, processes)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name][4:], err_msg=name)
    assert_near(parameters(folder), parameters(one))
