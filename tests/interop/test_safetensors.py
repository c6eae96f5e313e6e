"""Our safetensors against the reference library, both ways, and damaged files."""

import json

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.safetensors import BFLOAT16, read_safetensors, write_safetensors

ARRAYS = {
    "matrix": np.arange(15, dtype=np.float32).reshape(3, 5),
    "vector": np.array([0.5, -2.0, 7.0], np.float32),
    "scalar": np.array(3.0, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {name: array.shape for name, array in ARRAYS.items()}, ARRAYS.items(), np.float32)
    return path


def test_the_reference_library_reads_what_we_write(written):
    library = pytest.importorskip("safetensors.numpy")
    for name, array in library.load_file(written).items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.shape == ARRAYS[name].shape


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_])
def test_we_read_what_the_reference_library_writes(tmp_path, dtype):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {"odd bytes in front": np.zeros(3, np.uint8), "values": np.arange(6).reshape(2, 3).astype(dtype)}
    library.save_file(arrays, tmp_path / "a.safetensors")
    found = read_safetensors(tmp_path / "a.safetensors")
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["values"], arrays["values"])
    assert found["values"].dtype == dtype


def test_bfloat16_keeps_its_bits(tmp_path):
    array = np.array([1.0, -3.140625, 1e30], BFLOAT16)
    write_safetensors(tmp_path / "a", {"x": (3,)}, [("x", array)], BFLOAT16)
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a")["x"], array)


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_that_is_cut_short_is_refused(written, kept):
    written.write_bytes(written.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"model\.safetensors is (damaged or )?cut short"):
        read_safetensors(written)


def test_other_damage_is_named(written):
    whole = written.read_bytes()
    written.write_bytes(whole + b"\0")
    with pytest.raises(UserError, match="1 bytes at its end"):
        read_safetensors(written)
    written.write_bytes(whole.replace(b'"shape":[3]', b'"shape":[4]'))
    with pytest.raises(UserError, match=r"'vector' of shape \[4\] takes bytes 60 to 72"):
        read_safetensors(written)
    written.write_bytes(whole.replace(b'{"dtype"', b'["dtype"', 1))
    with pytest.raises(UserError, match="its header is no JSON"):
        read_safetensors(written)


def with_header(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "no table of tensors"),
        ({"x": {"dtype": "F32", "shape": [2]}}, "entry of 'x' is incomplete"),
        ({"x": 5}, "entry of 'x' is incomplete"),
        ({"x": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, "'x' holds F8_E4M3"),
        ({"x": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}, r"'x' of shape \[-2, -1\]"),
        ({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "xy"}, "tensors overlap"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, header, message):
    with pytest.raises(UserError, match=message):
        read_safetensors(with_header(tmp_path / "a", header))


def test_a_huge_header_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes((1 << 62).to_bytes(8, "little") + b"{" + bytes(100))
    with pytest.raises(UserError, match="a header of 4611686018427387904 bytes in a file of 109"):
        read_safetensors(tmp_path / "a")


def test_arrays_that_do_not_come_as_announced_are_a_fault_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="'y' of shape"):
        write_safetensors(tmp_path / "a", {"x": (2,)}, [("y", np.zeros(2))], np.float32)
