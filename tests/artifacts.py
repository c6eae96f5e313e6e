"""What takes long to make and many tests read: made once per session, also when several workers run side by side."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNITS_AND_LM = ROOT / "tests" / "faults" / "units_and_lm.py"


class Store:
    """Folders by name below `root`. Nobody changes what lies in them: a test that does takes a copy."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`; `make(folder)` fills it when it is asked for first, other workers wait for that."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder, done = self.root / name, self.root / f"{name}.done"
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, also by a worker that dies
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # somebody failed half-way
                folder.mkdir()
                make(folder)
                done.touch()
        return folder


def session_store(factory: pytest.TempPathFactory) -> Store:
    """The store of this session; pytest-xdist gives every worker a folder below that of the session."""
    base = factory.getbasetemp()
    return Store((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "artifacts")


def with_units(folder: Path) -> None:
    """A corpus of the world in `data`, and in `run` a run of `tests/faults/units_and_lm.py` whose units are done."""
    from slm_jax.cli.main import main

    places = ["--workdir", str(folder / "run"), "--data-dir", str(folder / "data")]
    assert main(["train", str(UNITS_AND_LM), *places, "--only", "units"]) == 0
    (folder / "run" / "run.json").unlink()  # the language model may be another one


def with_listener(folder: Path) -> None:
    """The reference system: its text LM in `lm`, its config file, its run in `run`, a few steps of every stage."""
    from slm_jax.cli import train
    from tests.reference.drawn import write_lm

    write_lm(folder / "lm")
    call = f"listener.config({str(folder / 'lm')!r})"
    (folder / "config.py").write_text(f"from tests.reference import listener\n\nconfig = {call}\n")
    train.main([str(folder / "config.py"), "--workdir", str(folder / "run"), "--data-dir", str(folder / "data")])


def with_codec(folder: Path) -> None:
    """A codec that was trained for two steps on hums, in `run`: it streams, and hardly resembles what it hears."""
    import numpy as np

    from slm_jax.audio.files import write_wav
    from slm_jax.cli import train

    for number in range(4):
        hum = 0.3 * np.sin(np.arange(16_000) * (0.05 + 0.02 * number))
        write_wav(folder / "hums" / f"{number}.wav", hum, 16_000)
    (folder / "config.py").write_text(
        "from slm_jax.data.corpus import FolderConfig\n"
        "from slm_jax.systems.recipes.codec_run import CodecRunConfig\n"
        "from tests.training.small_codec import STAGE\n\n"
        f"corpus = FolderConfig(path={str(folder / 'hums')!r})\n"
        'config = CodecRunConfig(name="hums", corpus=corpus, stages=(STAGE.replace(judges=None),))\n'
    )
    places = ["--workdir", str(folder / "run"), "--data-dir", str(folder / "data")]
    train.main([str(folder / "config.py"), *places, "--codec.train.steps", "2", "--codec.start_segments", "0"])
