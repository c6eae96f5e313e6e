"""Two processes with two devices each train, save and resume as one machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.core.trees import flatten_by_path
from slm_jax.training.metrics import read_metrics
from tests.training.small_run import CONFIG, plain_objective, player, start

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "multidevice" / "two_processes.py"


def run_two(folder: Path, steps: int) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
    }
    logs = [(folder / f"log{index}").open("a+") for index in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), address, "2", str(index), str(steps)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for index, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(200) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [0, 0], "\n".join(Path(log.name).read_text()[-3000:] for log in logs)


@pytest.mark.slow(seconds=60)
def test_two_processes_equal_one_and_their_checkpoint_is_one(tmp_path):
    alone = start(tmp_path / "alone", CONFIG.replace(steps=10), players=[player(objective=plain_objective)])
    run_two(tmp_path, steps=10)
    together = dict(np.load(tmp_path / "params.npz"))
    stored = flatten_by_path(restore_params(tmp_path / "run" / "checkpoints").trees["params"])
    for path, leaf in flatten_by_path(alone.params).items():
        np.testing.assert_allclose(together[path], leaf, atol=1e-5, rtol=0, err_msg=path)
        np.testing.assert_array_equal(stored[path], together[path], err_msg=path)
    kept = Checkpoints(tmp_path / "run" / "checkpoints")
    assert kept.steps() == [5, 10]
    assert kept.read_json(10, "data") == {"hosts": {"0": 10, "1": 10}}
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [5, 10]
    # The newest goes, and both resume together from the one before to the same bytes.
    kept.path(10).rename(tmp_path / "aside")
    run_two(tmp_path, steps=10)
    for path, leaf in np.load(tmp_path / "params.npz").items():
        np.testing.assert_array_equal(leaf, together[path], err_msg=path)
