"""A disk that fills up under a run: it stops with one clear error, what was saved stays, and with room it goes on."""

import contextlib
import resource
import subprocess
import time

import pytest

from slm_jax.checkpoints.integrity import find_damage
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.errors import UserError
from slm_jax.training.metrics import read_metrics
from tests.training.small_run import CONFIG, SeededBatches, digest, start

SETTINGS = CONFIG.replace(steps=30)


class Filling(SeededBatches):
    """Calls `fill` with batch 12, once the checkpoint of step 10 is on disk."""

    def __init__(self, folder, fill) -> None:
        super().__init__()
        self.checkpoints, self.fill = Checkpoints(folder / "checkpoints"), fill

    def __next__(self):
        if self.next == 12:
            end = time.monotonic() + 60
            while self.checkpoints.latest_step() != 10:
                assert time.monotonic() < end
                time.sleep(0.01)
            self.fill()
        return super().__next__()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return digest(start(tmp_path_factory.mktemp("undisturbed"), SETTINGS).trees())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    except OSError as error:
        pytest.skip(f"no small disk could be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no small disk could be mounted: {done.stderr.strip()}")
    yield disk
    # Lazily, since TensorBoard's writer keeps the file open in which it came to grief.
    subprocess.run(["umount", "--lazy", str(disk)], timeout=10, check=True)


@pytest.fixture
def quota():
    """`quota(bytes)`: no file may grow beyond that from now on; lifted at the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_intact(folder):
    checkpoints = Checkpoints(folder / "checkpoints")
    assert checkpoints.latest_step() == 10
    assert [find_damage(checkpoints.path(step)) for step in checkpoints.steps()] == [None, None]


def test_a_full_disk_stops_the_run_and_with_room_it_goes_on(small_disk, undisturbed):
    ballast = small_disk / "ballast"

    def fill():
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    with pytest.raises(UserError, match=r"No space left on device.*[Ll]ast good checkpoint: step 10"):
        start(small_disk / "run", SETTINGS, batches=Filling(small_disk / "run", fill))
    check_intact(small_disk / "run")
    ballast.unlink()
    assert digest(start(small_disk / "run", SETTINGS).trees()) == undisturbed
    assert [line["step"] for line in read_metrics(small_disk / "run")] == list(range(5, 31, 5))


def test_a_quota_stops_the_run_and_without_it_it_goes_on(tmp_path, quota, undisturbed):
    with pytest.raises(UserError, match=r"File too large.*[Ll]ast good checkpoint: step 10"):
        start(tmp_path, SETTINGS, batches=Filling(tmp_path, lambda: quota(64)))
    quota(resource.RLIM_INFINITY)
    check_intact(tmp_path)
    assert digest(start(tmp_path, SETTINGS).trees()) == undisturbed
