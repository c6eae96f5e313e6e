"""A model folder laid out for eight devices: each reads its own share, and the whole is the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from slm_jax.interop.families import family_for
from slm_jax.interop.model import export, load, open_model
from slm_jax.interop.streaming import import_streamed
from slm_jax.sequence_models.presets import llama

ROOT = Path(__file__).resolve().parents[2]
CONFIG = llama(vocabulary=24, layers=2, width=16, heads=2, kv_heads=1, hidden=40, max_positions=16)
PROGRAM = """
import json, sys
import numpy as np
from slm_jax.checkpoints.model_folder import load_model, read_config
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.families import family_for
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for

folder, out = sys.argv[1:]
config = read_config(folder)
mesh = MeshConfig(data=1, fsdp=8, rules="fsdp").make()
shardings = shardings_for(family_for(config).boxed(config), mesh, "fsdp")
params = flatten_by_path(load_model(folder, shardings)[1])
np.savez(out, **{path: np.asarray(leaf) for path, leaf in params.items()})
shares = {path: [list(s.data.shape) for s in leaf.addressable_shards] for path, leaf in params.items()}
print(json.dumps(shares))
"""


def test_eight_devices_read_their_shares(tmp_path):
    rng = np.random.default_rng(0)
    shapes = family_for(CONFIG).abstract(CONFIG)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    export(CONFIG, drawn, tmp_path / "hub")
    import_streamed(open_model(tmp_path / "hub"), tmp_path / "ours", {}, devices=8)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "ours"), str(tmp_path / "found.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    shares = json.loads(done.stdout)
    assert shares["blocks/layers/mlp/up/kernel"] == [[2, 2, 40]] * 8
    assert shares["tokens/embedding"] == [[24, 2]] * 8
    wanted = jax.tree_util.tree_leaves_with_path(load(tmp_path / "hub")[1])
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == len(wanted)
        for path, leaf in wanted:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)
