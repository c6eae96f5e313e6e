"""Files and folders of weights: what is found where, and one clear error for each thing that can be wrong."""

import json
import zipfile

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.readers import open_weights
from slm_jax.interop.safetensors import write_safetensors

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.float32)}


def write(path, arrays):
    write_safetensors(path, {name: array.shape for name, array in arrays.items()}, arrays.items(), np.float32)


def sharded(folder):
    write(folder / "one.safetensors", {"a": ARRAYS["a"]})
    write(folder / "two.safetensors", {"b": ARRAYS["b"]})
    index(folder, a="one.safetensors", b="two.safetensors")


def index(folder, **places):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def same(source):
    assert source.shapes == {"a": (2, 3), "b": (4,)}
    assert source.dtypes == {"a": "float32", "b": "float32"}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(source.read(name), array)


def test_a_folder_a_file_an_index_and_an_npz_hold_the_same(tmp_path):
    for folder in ("single", "sharded", "npz"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "single" / "model.safetensors", ARRAYS)
    sharded(tmp_path / "sharded")
    np.savez(tmp_path / "npz" / "weights.npz", **ARRAYS)
    same(open_weights(tmp_path / "single"))
    same(open_weights(tmp_path / "single" / "model.safetensors"))
    same(open_weights(tmp_path / "sharded"))
    same(open_weights(tmp_path / "sharded" / "model.safetensors.index.json"))
    same(open_weights(tmp_path / "npz"))


def test_the_kind_of_a_file_is_told_from_its_bytes(tmp_path):
    write(tmp_path / "g_02500000", ARRAYS)
    same(open_weights(tmp_path / "g_02500000"))


def test_a_folder_without_or_with_too_many_weights(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_weights(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no weights; expected model\.safetensors\.index\.json"):
        open_weights(tmp_path)
    for name in ("x.safetensors", "y.npz"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"several files of weights \(x\.safetensors, y\.npz\)"):
        open_weights(tmp_path)


def test_missing_shards_are_all_named(tmp_path):
    index(tmp_path, a="one.safetensors", b="two.safetensors", c="three.safetensors")
    write(tmp_path / "one.safetensors", {"a": ARRAYS["a"]})
    with pytest.raises(UserError, match=r"lacks 2 of 3 shards: three\.safetensors, two\.safetensors"):
        open_weights(tmp_path)


def test_an_index_that_does_not_fit_its_shards(tmp_path):
    sharded(tmp_path)
    index(tmp_path, a="one.safetensors", c="two.safetensors")
    with pytest.raises(UserError, match=r"absent c \(two\.safetensors\); not in the index b \(two\.safetensors\)"):
        open_weights(tmp_path)


def test_an_index_may_not_point_out_of_its_folder(tmp_path):
    index(tmp_path, a="../secret.safetensors")
    with pytest.raises(UserError, match=r"names files outside its folder: \.\./secret\.safetensors"):
        open_weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": ["x"]}}'])
def test_a_damaged_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match="has no table `weight_map`"):
        open_weights(tmp_path)


def test_an_npz_of_objects_is_refused_without_unpickling(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"run": "me"}], dtype=object))
    with pytest.raises(UserError, match=r"a\.npy holds object, not numbers"):
        open_weights(tmp_path / "x.npz")


def test_files_of_other_kinds_and_cut_archives(tmp_path):
    (tmp_path / "text.bin").write_text("hello, this is no file of weights")
    with pytest.raises(UserError, match="no safetensors, npz or PyTorch file"):
        open_weights(tmp_path / "text.bin")
    (tmp_path / "empty.bin").touch()
    with pytest.raises(UserError, match="no safetensors, npz or PyTorch file"):
        open_weights(tmp_path / "empty.bin")
    np.savez(tmp_path / "x.npz", **ARRAYS)
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-30])
    with pytest.raises(UserError, match="damaged or cut short: its zip directory"):
        open_weights(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"neither an npz nor written by torch\.save"):
        open_weights(tmp_path / "z.zip")
