"""Conversion layer by layer: the same numbers as at once, in the memory of a layer."""

import json

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.checkpoints.model_folder import load_model, open_params, open_stored
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_bytes, flatten_by_path
from slm_jax.interop import streaming
from slm_jax.interop.families import family_for
from slm_jax.interop.model import export, load, open_model
from slm_jax.interop.streaming import device_shares, import_streamed, readable_by_layer
from slm_jax.sequence_models.presets import gpt2
from tests.interop.converted import CONFIG, drawn_folder, peak_bytes

TINY = {"layers": 3, "width": 24, "heads": 3, "hidden": 40, "max_positions": 19}
CONFIGS = {
    "llama": CONFIG.replace(vocabulary=41, kv_heads=1, **TINY),
    "gpt2, one source of three weights": gpt2(vocabulary=41, **TINY),
}


def equal(one, other, dtype=np.float32):
    first, second = flatten_by_path(one), flatten_by_path(other)
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        assert leaf.dtype == dtype
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(second[path]).astype(dtype), err_msg=path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_streamed_is_what_is_read_at_once_and_goes_back_the_same(tmp_path, name, dtype):
    folder = drawn_folder(tmp_path / "hub", CONFIGS[name], 8_000)
    told = []
    model = open_model(folder)
    import_streamed(model, tmp_path / "ours", {"family": "x"}, dtype=dtype, told=told.append)
    config, params = load_model(tmp_path / "ours")
    assert config == CONFIGS[name] and sum(told) == count_bytes(params)
    equal(params, load(folder)[1], jax.numpy.dtype(dtype))
    _, stored = open_stored(tmp_path / "ours")
    back = load(export(config, stored, tmp_path / "back", dtype=dtype))[1]
    equal(jax.tree.map(lambda leaf: leaf.astype(dtype), back), params, jax.numpy.dtype(dtype))


def test_each_device_finds_its_share_apart(tmp_path):
    config = CONFIGS["llama"]
    model = open_model(drawn_folder(tmp_path / "hub", config, 10**9))
    shares = device_shares(model, 4)
    assert shares["blocks/layers/mlp/up/kernel"] == (3, 6, 40), "the embed axis is shared out first"
    import_streamed(model, tmp_path / "ours", {}, devices=4)
    stored = flatten_by_path(open_stored(tmp_path / "ours")[1])
    for path, leaf in stored.items():
        layered = path.startswith("blocks")
        assert leaf.chunk == ((1, *shares[path][1:]) if layered else shares[path]), path
    equal(load_model(tmp_path / "ours")[1], load(tmp_path / "hub")[1])


def test_weights_that_contradict_themselves_leave_nothing(tmp_path):
    config = CONFIG.replace(vocabulary=41, kv_heads=1, **TINY)
    folder = drawn_folder(tmp_path / "hub", config, 10**9)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match="differs from it: this model ties the two"):
        import_streamed(open_model(folder), tmp_path / "ours", {})
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_unknown_numbers_are_refused(tmp_path):
    model = open_model(drawn_folder(tmp_path / "hub", CONFIGS["llama"], 10**9))
    with pytest.raises(UserError, match="dtype is 'int8'"):
        import_streamed(model, tmp_path / "ours", {}, dtype="int8")


def test_what_training_stored_as_a_whole_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 4096)  # what counts as large
    large = np.arange(2 * 4096, dtype=np.float32).reshape(2, -1)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"params": {"a": {"large": large, "small": large[:, :5]}}}, {}, {})
    checkpoints.close()
    (tmp_path / "scratch").mkdir()
    stored = open_params(tmp_path / "checkpoints", "params")
    assert not stored["a"]["large"].parts_apart
    found = readable_by_layer(stored, tmp_path / "scratch")
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["a.large"]
    assert isinstance(found["a"]["large"], np.memmap)
    np.testing.assert_array_equal(found["a"]["large"], large)
    np.testing.assert_array_equal(found["a"]["small"][1], large[1, :5])


def check_memory(folder, config, shard_bytes, mesh=()):
    """What a conversion of the model takes beyond that of a tiny one stays below one shard."""
    model_bytes = count_bytes(family_for(config).abstract(config))
    assert model_bytes > 4 * shard_bytes
    small = CONFIG.replace(layers=1, vocabulary=16, width=48, hidden=32)
    drawn_folder(folder / "small", small, shard_bytes)
    drawn_folder(folder / "large", config, shard_bytes)
    assert len(list((folder / "large").glob("*.safetensors"))) > 4
    peaks = {}
    for size in ("small", "large"):
        hub, ours, back = str(folder / size), str(folder / f"{size}_ours"), str(folder / f"{size}_back")
        into = peak_bytes("convert", hub, ours, *mesh)
        peaks[size] = into, peak_bytes("convert", ours, back, "--shard-gb", f"{shard_bytes / 1e9}")
    more = [large - small for small, large in zip(peaks["small"], peaks["large"], strict=True)]
    print(f"model {model_bytes / 1e6:.0f} MB, shards {shard_bytes / 1e6:.0f} MB, taken in and out", peaks)
    assert max(more) < shard_bytes, peaks
    assert (folder / "large_back" / "model.safetensors.index.json").is_file()


@pytest.mark.slow(seconds=40)
def test_memory_is_bounded_by_a_shard(tmp_path):
    check_memory(tmp_path, CONFIG.replace(layers=30), 40 * 10**6)


@pytest.mark.slow(seconds=200)
def test_memory_is_bounded_by_a_shard_of_a_larger_model(tmp_path):
    config = CONFIG.replace(layers=24, width=1024, heads=16, kv_heads=8, hidden=2816, vocabulary=8191)
    check_memory(tmp_path, config, 200 * 10**6, ("--mesh", "8"))
