"""Folders that tests share are made once, whoever asks for them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.artifacts import Store

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from pathlib import Path
from tests.artifacts import Store

def make(folder):
    with (folder / "made").open("a") as file:
        file.write("once ")
    time.sleep(0.3)
    (folder / "whole").touch()

folder = Store(Path(sys.argv[1]))("thing", make)
assert (folder / "whole").exists()
"""


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(subprocess.run, command, cwd=ROOT, timeout=60, check=True) for _ in range(3)]
    assert all(run.result().returncode == 0 for run in runs)
    assert (tmp_path / "thing" / "made").read_text() == "once "


def test_what_failed_half_way_is_made_anew(tmp_path):
    store, tries = Store(tmp_path), []

    def make(folder):
        tries.append(list(folder.iterdir()))
        (folder / "half").touch()
        if len(tries) == 1:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        store("thing", make)
    assert (store("thing", make) / "half").exists() and store("thing", make) == tmp_path / "thing"
    assert tries == [[], []]
