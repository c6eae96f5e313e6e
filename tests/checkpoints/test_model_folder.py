"""Model folders: what goes in comes out, whole or not at all; arrays that are made while they are written."""

import dataclasses
import json
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints import streamed
from slm_jax.checkpoints.manager import CheckpointError, Checkpoints
from slm_jax.checkpoints.model_folder import load_model, open_params, open_stored, read_config, read_meta, save_model
from slm_jax.checkpoints.streamed import StreamedArray
from slm_jax.checkpoints.whole_folder import whole_folder
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import replicated
from slm_jax.sequence_models.presets import llama

CONFIG = llama(vocabulary=7, layers=3, width=8, heads=2, kv_heads=1, hidden=12, max_positions=16)
STACK = np.random.default_rng(0).normal(size=(3, 8, 12)).astype(np.float32)


def tree():
    return {"blocks": {"kernel": STACK, "half": jnp.full((3,), 1.5, jnp.bfloat16)}, "scale": np.float32([2.0])}


def equal(one, other):
    first, second = flatten_by_path(one), flatten_by_path(other)
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        assert (leaf.shape, leaf.dtype) == (second[path].shape, second[path].dtype), path
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(second[path]), err_msg=path)


def parts_of(array):
    return lambda: enumerate(array)


def test_a_model_comes_back_with_its_config_and_what_lay_beside_it(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    folder = save_model(tmp_path / "model", CONFIG, tree(), {"source": "here"}, [tmp_path / "tokenizer.json"])
    config, params = load_model(folder)
    assert config == read_config(folder) == CONFIG and read_meta(folder) == {"source": "here"}
    assert (folder / "tokenizer.json").read_text() == '{"a": 1}'
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    equal(params, tree())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tokenizer.json"]


def test_streamed_arrays_are_asked_for_one_part_at_a_time(tmp_path):
    asked = []

    def parts(name):
        for layer, array in enumerate(STACK):
            asked.append((name, layer))
            yield layer, array

    leaves = {
        name: StreamedArray(STACK.shape, STACK.dtype, lambda name=name: parts(name), layered=True) for name in "ab"
    }
    save_model(tmp_path / "model", CONFIG, leaves)
    assert sorted(asked) == [(name, layer) for name in "ab" for layer in range(3)]
    assert asked in (sorted(asked), sorted(asked, key=lambda one: (-ord(one[0]), one[1]))), "one array after the other"
    equal(load_model(tmp_path / "model")[1], {"a": STACK, "b": STACK})


def test_stored_arrays_give_their_layers_alone(tmp_path):
    leaves = {"stack": StreamedArray(STACK.shape, STACK.dtype, parts_of(STACK), layered=True), "whole": STACK}
    _, stored = open_stored(save_model(tmp_path / "model", CONFIG, leaves))
    assert stored["stack"].parts_apart and not stored["whole"].parts_apart
    assert (stored["stack"].shape, stored["stack"].dtype) == (STACK.shape, STACK.dtype)
    np.testing.assert_array_equal(stored["stack"][1], STACK[1])
    np.testing.assert_array_equal(np.asarray(stored["whole"]), STACK)


def test_a_share_of_each_device_is_stored_apart(tmp_path):
    leaf = StreamedArray(STACK.shape, STACK.dtype, parts_of(STACK), layered=True, shard=(3, 8, 3))
    assert leaf.chunk == (1, 8, 3)
    _, stored = open_stored(save_model(tmp_path / "model", CONFIG, {"stack": leaf}))
    assert stored["stack"].chunk == (1, 8, 3)
    np.testing.assert_array_equal(np.asarray(stored["stack"]), STACK)


def test_large_tables_are_stored_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "CHUNK_BYTES", 3 * 12 * 4)
    table = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    whole = StreamedArray(table.shape, table.dtype, lambda: iter([(None, table)]))
    shared = dataclasses.replace(whole, shape=(14, 12), shard=(7, 12))
    assert whole.chunk == (3, 12), "the last chunk need not be full"
    assert shared.chunk == (7, 12), "the share of a device is not cut where it would leave a rest"
    _, stored = open_stored(save_model(tmp_path / "model", CONFIG, {"table": whole}))
    assert stored["table"].chunk == (3, 12)
    np.testing.assert_array_equal(np.asarray(stored["table"]), table)


def test_arrays_of_a_run_can_be_opened_too(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"params": tree()}, {}, {})
    checkpoints.close()
    equal(open_params(tmp_path, "params"), tree())
    with pytest.raises(UserError, match=r"item is 'ema': .*\['params'\]"):
        open_params(tmp_path, "ema")


def test_every_array_has_its_sharding_or_is_named(tmp_path):
    folder = save_model(tmp_path / "model", CONFIG, {"a": STACK, "b": STACK})
    mesh = replicated(MeshConfig().make())
    assert load_model(folder, {"a": mesh, "b": mesh})[1]["a"].sharding == mesh
    with pytest.raises(UserError, match=r"sharding is \['b'\]"):
        load_model(folder, {"a": mesh})


def test_damage_is_named(tmp_path):
    folder = save_model(tmp_path / "model", CONFIG, tree())
    largest = max((folder / "weights").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    message = rf"no undamaged checkpoint: .*{largest.name} does not have the bytes"
    for read in (load_model, open_stored):
        with pytest.raises(CheckpointError, match=message):
            read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 2, "config": {}, "meta": {}}', "reads 1"),
        ('{"format": 1, "config": {"type": "nn.Nothing"}, "meta": {}}', "is not known"),
        (None, "it has no model.json"),
    ],
)
def test_a_folder_that_is_none_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "model.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        save_model(tmp_path / "model", CONFIG, tree())
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine"]


def test_what_a_part_has_to_complain_about_comes_through_and_nothing_stays(tmp_path):
    def parts():
        yield 0, STACK[0]
        raise UserError("layer 1 is cut short")

    with pytest.raises(UserError, match="layer 1 is cut short"):
        save_model(tmp_path / "model", CONFIG, {"a": StreamedArray(STACK.shape, STACK.dtype, parts, layered=True)})
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    noise = {"a": np.random.default_rng(0).normal(size=(64, 1024))}
    old_limit, old_action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old_limit[1]))
    try:
        with pytest.raises(CheckpointError, match=r"model could not be written: .*File too large"):
            save_model(tmp_path / "model", CONFIG, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_action)
    assert not list(tmp_path.iterdir())
    save_model(tmp_path / "model", CONFIG, noise)


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "old").write_text("x")
    with whole_folder(tmp_path / "model") as partial:
        assert not list(partial.iterdir())
        with pytest.raises(UserError, match="written by another process"), whole_folder(tmp_path / "model"):
            pass
        (partial / "new").write_text(json.dumps(1))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"] and len(list(tmp_path.iterdir())) == 1
