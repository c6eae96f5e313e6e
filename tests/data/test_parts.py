"""Parts by several processes: scripts without a main guard, processes that end."""

import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from slm_jax.audio.files import write_wav
from slm_jax.data.corpora import parts
from slm_jax.data.corpora.parts import run_parts

SCRIPT = """
import sys
from slm_jax.data.corpus import FolderConfig, prepare_corpus
print("the script begins")
report = prepare_corpus(FolderConfig(path=sys.argv[1], processes=2, dev_share=0.0), sys.argv[2], progress=False)
print("accepted", sum(report.accepted.values()), __file__)
"""


def test_a_script_without_a_main_guard_prepares_its_corpus(tmp_path):
    for i in range(40):  # two parts, so two processes
        write_wav(tmp_path / "speech" / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=2000), 16_000)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "speech"), str(tmp_path / "data")]
    environment = os.environ | {"PYTHONPATH": str(Path(parts.__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the script begins", f"accepted 40 {script}"]
    assert "Traceback" not in done.stderr


def where(job):
    """Who made it; a worker does not survive job 1."""
    if job == 1 and multiprocessing.parent_process() is not None:
        os._exit(1)
    return [{"id": str(job), "process": os.getpid()}]


def test_when_the_processes_end_one_goes_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        parts._say_broken.cache_clear()
        made = list(run_parts(range(4), where, tmp_path, processes=2))
    assert [records[0]["id"] for _, records in made] == ["0", "1", "2", "3"]
    assert made[1][1][0]["process"] == os.getpid()
    (line,) = caplog.messages
    assert "going on in one process" in line and "__main__" in line
