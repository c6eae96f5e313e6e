"""Damaged shards, under the command line: one line that names the file, and nothing of the run is lost."""

import shutil
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.integrity import find_damage
from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.cli.main import main
from tests.artifacts import with_units

CONFIG = str(Path(__file__).parent / "units_and_lm.py")
STEPS = 60


@pytest.fixture(scope="module")
def prepared(made_once):
    """A folder with a corpus in `data` and, in `run`, a run whose units are done."""
    return made_once("units", with_units)


@pytest.fixture
def folder(prepared, tmp_path):
    """One's own copy of it."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def typed(folder: Path, *more: str) -> int:
    """The exit code of training in `folder`."""
    where = ["--workdir", str(folder / "run"), "--data-dir", str(folder / "data")]
    return main(["train", CONFIG, *where, "--lm.train.steps", str(STEPS), *more])


def flip(path: Path) -> bytes:
    """Change every 32nd byte of a file where it lies; what it held before."""
    clean = path.read_bytes()
    data = bytearray(clean)
    data[::32] = (byte ^ 0x55 for byte in data[::32])
    with path.open("r+b") as file:
        file.write(data)
    return clean


def the_error(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def units(folder: Path) -> Path:
    return folder / "run" / "stages" / "units" / "units" / "train"


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(folder / "run" / "stages" / "lm" / "checkpoints")


def final_bytes(folder: Path) -> list[bytes]:
    restored = restore_params(checkpoints(folder).folder)
    assert restored.step == STEPS
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored.trees["params"])]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
def test_a_damaged_shard_of_units_is_named_when_it_is_opened_or_read(folder, capsys, damage):
    shard = units(folder) / "00003.array_record"
    damage(shard)
    assert typed(folder) == 2
    assert f"shard {str(shard)!r} is damaged" in the_error(capsys)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
def test_a_damaged_shard_of_the_corpus_is_named(folder, capsys, damage):
    shutil.rmtree(folder / "run" / "stages")
    (shard,) = (folder / "data").rglob("*train.array_record*")
    damage(shard)
    assert typed(folder, "--only", "units") == 2
    assert f"shard {str(shard)!r}" in the_error(capsys)


@pytest.mark.slow(seconds=30)
def test_damage_while_training_leaves_the_checkpoint_before_and_the_same_command_goes_on(prepared, folder, capsys):
    clean: dict[Path, bytes] = {}

    def damage_after_the_first_checkpoint() -> None:
        end = time.monotonic() + 200
        while checkpoints(folder).latest_step() is None and time.monotonic() < end:
            time.sleep(0.01)
        for shard in units(folder).glob("*.array_record"):
            clean[shard] = flip(shard)

    thread = threading.Thread(target=damage_after_the_first_checkpoint)
    thread.start()
    code = typed(folder)
    thread.join()
    assert code == 2
    assert "is damaged: row" in the_error(capsys)
    kept = checkpoints(folder)
    assert 0 < kept.latest_step() < STEPS
    assert [find_damage(kept.path(step)) for step in kept.steps()] == [None] * len(kept.steps())

    for shard, data in clean.items():
        shard.write_bytes(data)
    assert typed(folder) == 0
    shutil.copytree(prepared / "run", folder / "whole" / "run")
    (folder / "whole" / "data").symlink_to(prepared / "data")
    assert typed(folder / "whole") == 0
    assert final_bytes(folder) == final_bytes(folder / "whole")
