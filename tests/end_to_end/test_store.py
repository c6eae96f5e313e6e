"""A recipe through the command line with its run folder and its corpus in `gs://` ends with the bytes of one on a disk.

The store is an emulator of Google Cloud Storage (`tests/bucket.py`).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slm_jax.checkpoints.manager import restore_params
from slm_jax.core.paths import as_path, copy_file, files_below
from slm_jax.core.trees import flatten_by_path
from tests.bucket import bucket

__all__ = ["bucket"]
ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "tests" / "faults" / "units_and_lm.py"


def train(workdir, data, cache):
    command = [
        sys.executable,
        "-m",
        "slm_jax",
        "train",
        str(CONFIG),
        "--workdir",
        str(workdir),
        "--data-dir",
        str(data),
    ]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "PYTHONPATH": path, "SLM_JAX_CACHE": str(cache)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow(seconds=120)
@pytest.mark.timeout(900)
def test_a_run_in_a_store_equals_one_here(bucket, tmp_path):
    train(tmp_path / "run", tmp_path / "data", tmp_path / "cache")
    for file in files_below(tmp_path / "data"):
        copy_file(file, as_path(f"{bucket}/data") / file.relative_to(tmp_path / "data").as_posix())
    said = train(f"{bucket}/run", f"{bucket}/data", tmp_path / "cache")
    assert "lm: goodput" in said
    there, here = (
        flatten_by_path(restore_params(as_path(place) / "stages" / "lm" / "checkpoints").trees)
        for place in (f"{bucket}/run", tmp_path / "run")
    )
    assert there.keys() == here.keys()
    for path, leaf in here.items():
        np.testing.assert_array_equal(there[path], leaf, err_msg=path)
    assert "stage lm: was done already" in train(f"{bucket}/run", f"{bucket}/data", tmp_path / "cache")
