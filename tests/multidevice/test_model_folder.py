"""A model folder laid out for eight devices: each reads its own share, and the whole is the same."""

import jax
import numpy as np

from slm_jax.checkpoints.model_folder import load_model, read_config
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.families import family_for
from slm_jax.interop.model import export, load, open_model
from slm_jax.interop.streaming import import_streamed
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for
from slm_jax.sequence_models.presets import llama

CONFIG = llama(vocabulary=24, layers=2, width=16, heads=2, kv_heads=1, hidden=40, max_positions=16)


def on_eight(folder, out):
    """How each leaf lies over the devices, by path; the whole ones go to the file `out`."""
    config = read_config(folder)
    mesh = MeshConfig(data=1, fsdp=8, rules="fsdp").make()
    shardings = shardings_for(family_for(config).boxed(config), mesh, "fsdp")
    params = flatten_by_path(load_model(folder, shardings)[1])
    np.savez(out, **{path: np.asarray(leaf) for path, leaf in params.items()})
    return {path: [list(s.data.shape) for s in leaf.addressable_shards] for path, leaf in params.items()}


def test_eight_devices_read_their_shares(eight, tmp_path):
    rng = np.random.default_rng(0)
    shapes = family_for(CONFIG).abstract(CONFIG)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    export(CONFIG, drawn, tmp_path / "hub")
    import_streamed(open_model(tmp_path / "hub"), tmp_path / "ours", {}, devices=8)
    shares = eight("test_model_folder:on_eight", str(tmp_path / "ours"), str(tmp_path / "found.npz"))
    assert shares["blocks/layers/mlp/up/kernel"] == [[2, 2, 40]] * 8
    assert shares["tokens/embedding"] == [[24, 2]] * 8
    wanted = jax.tree_util.tree_leaves_with_path(load(tmp_path / "hub")[1])
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == len(wanted)
        for path, leaf in wanted:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)
