"""A sharded LLaMA folder of any size made without holding it, and the memory that a conversion takes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from slm_jax.interop.families import family_for
from slm_jax.interop.model import export
from slm_jax.sequence_models.presets import llama

WIDTH = 384
CONFIG = llama(vocabulary=1009, layers=8, width=WIDTH, heads=6, kv_heads=2, hidden=1024, max_positions=64)


class Drawn:
    """A leaf whose layers are drawn when they are asked for."""

    def __init__(self, shape):
        self.shape = tuple(shape)

    def __getitem__(self, index):
        return np.random.default_rng(index).standard_normal(self.shape[1:], np.float32)

    def __array__(self, dtype=None, copy=None):
        return np.random.default_rng(0).standard_normal(self.shape, np.float32)


def drawn_folder(folder: Path, config, shard_bytes: int) -> Path:
    """The config's weights, random, in shards."""
    params = jax.tree.map(lambda leaf: Drawn(leaf.shape), family_for(config).abstract(config))
    return export(config, params, folder, shard_bytes=shard_bytes)


def peak_bytes(*arguments: str) -> int:
    """The most memory of its own (no mapped files) that `python -m slm_jax ARGUMENTS` had; it must end well."""
    with subprocess.Popen(
        [sys.executable, "-m", "slm_jax", *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.005)
        out, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["parameters"] > 0
    return peak


def anonymous_bytes(pid: int) -> int:
    """Resident memory that is not a file's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
