"""Every file of a checkpoint damaged in turn: it is found, named, and the checkpoint before is used."""

import shutil

import jax
import pytest

from slm_jax.checkpoints.integrity import SEAL, VOLATILE, find_damage
from slm_jax.checkpoints.manager import CheckpointError, Checkpoints, restore_params
from slm_jax.core.paths import files_below
from tests.training.small_run import CONFIG, digest, start


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with the checkpoints of steps 5 and 10, and the digests of its parameters in both."""
    folder = tmp_path_factory.mktemp("run")
    start(folder, CONFIG.replace(steps=10))
    both = [restore_params(alone(folder, step)).trees for step in (5, 10)]
    return folder, [digest(trees) for trees in both]


def alone(folder, step):
    """A folder with one checkpoint of a run."""
    target = folder.with_name(f"{folder.name}_{step}")
    shutil.copytree(folder / "checkpoints" / f"{step:08d}", target / f"{step:08d}", dirs_exist_ok=True)
    return target


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def lengthen(file):
    file.write_bytes(file.read_bytes() + b"\0")


def remove(file):
    file.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, lengthen, remove])
def test_each_file_in_turn(run, tmp_path, damage):
    folder, (before, newest) = run
    checkpoints = Checkpoints(folder / "checkpoints")
    files = [file.relative_to(checkpoints.path(10)) for file in files_below(checkpoints.path(10))]
    assert len(files) > 15
    assert {SEAL, *VOLATILE[:1]} <= {file.name for file in files}
    for file in files:
        whole = (checkpoints.path(10) / file).read_bytes()
        if not whole and damage in (flip, truncate):
            continue
        try:
            damage(checkpoints.path(10) / file)
            if file.name in VOLATILE:  # changes after the seal; nothing is read from it
                assert checkpoints.newest_sound() == 10
                assert digest(restore_params(checkpoints.folder).trees) == newest
                continue
            assert file.as_posix() in find_damage(checkpoints.path(10)) or file.name == SEAL
            assert checkpoints.newest_sound() == 5, file
        finally:
            (checkpoints.path(10) / file).write_bytes(whole)
    assert checkpoints.newest_sound() == 10
    assert digest(restore_params(alone(folder, 5)).trees) == before


def test_the_one_before_is_what_training_goes_on_from(run, tmp_path, caplog):
    folder, _ = run
    wanted = digest(start(folder, CONFIG.replace(steps=10)).trees())
    shutil.copytree(folder, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    flip(max(files_below(checkpoints.path(10)), key=lambda file: file.stat().st_size))
    state = start(tmp_path / "run", CONFIG.replace(steps=10))
    assert "checkpoint of step 10" in caplog.text
    assert digest(state.trees()) == wanted
    assert checkpoints.steps() == [5, 10]
    assert (checkpoints.folder / "00000010.damaged").is_dir()


def test_when_all_are_damaged_nothing_is_used(run, tmp_path):
    folder, _ = run
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in checkpoints.steps():
        flip(checkpoints.path(step) / SEAL)
    with pytest.raises(CheckpointError, match="holds no undamaged checkpoint"):
        restore_params(checkpoints.folder)
    assert jax.process_count() == 1
