import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.records import RecordSource, pack_row, unpack_row, write_records


def rows(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"utt-{i}",
            "units": rng.integers(0, 100, i % 5 + 1).astype(np.int32),
            "features": rng.normal(size=(i % 3, 4)).astype(np.float32),
            "flags": rng.random(3) > 0.5,
            "seconds": float(rng.random()),
            "words": ["čaj", "tea"][: i % 3],
            "speaker": i,
        }
        for i in range(count)
    ]


def assert_same_row(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("count, shards", [(20, 8), (3, 8), (7, 1)])
def test_rows_come_back_in_order(tmp_path, count, shards):
    expected = rows(count)
    write_records(tmp_path / "table", iter(expected), shards=shards)
    source = RecordSource(tmp_path / "table")
    assert len(source) == count
    for i in range(count):
        assert_same_row(source[i], expected[i])
    assert_same_row(source[-1], expected[-1])
    with pytest.raises(IndexError):
        source[count]
    source.verify()


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64", ">i4"])
def test_every_numeric_dtype_survives(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    found = unpack_row(pack_row({"x": values, "scalar": np.asarray(3, dtype), "view": values[:, ::2]}))
    np.testing.assert_array_equal(found["x"], values)
    np.testing.assert_array_equal(found["view"], values[:, ::2])
    assert found["x"].dtype == np.dtype(dtype).newbyteorder("<")
    assert found["scalar"].shape == ()


def test_lengths_and_schema_without_reading_rows(tmp_path):
    expected = rows(11)
    write_records(tmp_path / "table", expected)
    source = RecordSource(tmp_path / "table")
    np.testing.assert_array_equal(source.lengths("units"), [len(row["units"]) for row in expected])
    assert source.schema["units"] == "int32[1]"
    assert source.schema["words"] == "list"
    with pytest.raises(UserError, match="seconds"):
        source.lengths("seconds")


def test_pickled_source_reads_the_same(tmp_path):
    expected = rows(9)
    write_records(tmp_path / "table", expected)
    source = RecordSource(tmp_path / "table")
    assert_same_row(source[4], expected[4])  # with an open reader, which does not pickle
    assert_same_row(pickle.loads(pickle.dumps(source))[5], expected[5])


def test_threads_read_the_right_rows(tmp_path):
    expected = rows(200)
    write_records(tmp_path / "table", expected, shards=3)
    source = RecordSource(tmp_path / "table")
    order = np.random.default_rng(1).integers(0, 200, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        for i, row in zip(order, pool.map(source.__getitem__, order), strict=True):
            assert row["id"] == expected[i]["id"]


def test_equal_rows_give_equal_hashes(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_records(tmp_path / name, rows(10, seed), shards=2)
    a, b, c = (RecordSource(tmp_path / name).content_hash for name in "abc")
    assert a == b != c


def test_a_failed_write_leaves_the_old_table_and_no_rubbish(tmp_path):
    write_records(tmp_path / "table", rows(4))

    def broken():
        yield from rows(3)
        raise RuntimeError("the encoder failed")

    with pytest.raises(RuntimeError, match="encoder"):
        write_records(tmp_path / "table", broken())
    assert len(RecordSource(tmp_path / "table")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    write_records(tmp_path / "table", rows(6))
    assert len(RecordSource(tmp_path / "table")) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.parametrize(
    "bad, message",
    [
        ([{"a": 1}, {"b": 1}], "row 1"),
        ([{"a": 1}, {"a": 1.5}], "row 1"),
        ([{"a": object()}], "plain value"),
        ([{"a": np.asarray(["x"])}], "booleans or numbers"),
        ([{"a": [1, {2}]}], "plain value"),
        ([{"a": {1: 2}}], "plain value"),
    ],
)
def test_rows_that_cannot_be_written(tmp_path, bad, message):
    with pytest.raises(UserError, match=message):
        write_records(tmp_path / "table", bad)
    assert list(tmp_path.iterdir()) == []


def test_nested_json_comes_back(tmp_path):
    row = {"turns": [{"role": "user", "start_s": 0.5, "said": None}, []], "extra": {"a": {"b": [1, 2.5, True, "č"]}}}
    write_records(tmp_path / "table", [row, {"turns": [], "extra": {}}])
    source = RecordSource(tmp_path / "table")
    assert source[0] == row and source[1] == {"turns": [], "extra": {}}
    assert source.schema == {"turns": "list", "extra": "dict"}


def test_an_empty_table_is_a_table(tmp_path):
    write_records(tmp_path / "table", [])
    source = RecordSource(tmp_path / "table")
    assert len(source) == 0 and source.schema == {} and len(source.lengths("units")) == 0
    source.verify()
    with pytest.raises(IndexError):
        source[0]


def test_none_goes_with_any_kind(tmp_path):
    write_records(tmp_path / "table", [{"speaker": value} for value in (None, "a", None)])
    source = RecordSource(tmp_path / "table")
    assert [source[i]["speaker"] for i in range(3)] == [None, "a", None]
    assert source.schema == {"speaker": "str"}
    with pytest.raises(UserError, match="row 2"):
        write_records(tmp_path / "table", [{"speaker": value} for value in ("a", None, 3)])


def test_missing_table_and_other_formats_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        RecordSource(tmp_path / "nowhere")
    write_records(tmp_path / "table", rows(4))
    index = tmp_path / "table" / "index.json"
    data = json.loads(index.read_text())
    index.write_text(json.dumps(data | {"format": 99}))
    with pytest.raises(UserError, match="99"):
        RecordSource(tmp_path / "table")
    index.write_text("{")
    with pytest.raises(UserError, match=r"index\.json"):
        RecordSource(tmp_path / "table")


def test_a_shortened_or_missing_shard_is_named_on_opening(tmp_path):
    write_records(tmp_path / "table", rows(20), shards=4)
    shard = tmp_path / "table" / "00002.array_record"
    data = shard.read_bytes()
    shard.write_bytes(data[:-7])
    with pytest.raises(UserError, match=r"00002\.array_record"):
        RecordSource(tmp_path / "table")
    shard.unlink()
    with pytest.raises(UserError, match=r"00002\.array_record.*missing"):
        RecordSource(tmp_path / "table")


def test_flipped_bytes_are_found(tmp_path):
    write_records(tmp_path / "table", rows(20), shards=2)
    shard = tmp_path / "table" / "00001.array_record"
    clean = shard.read_bytes()
    for place in range(0, len(clean), len(clean) // 25):
        data = bytearray(clean)
        data[place] ^= 0x10
        shard.write_bytes(data)
        source = RecordSource(tmp_path / "table")
        with pytest.raises(UserError, match=r"00001\.array_record"):
            source.verify()
        assert source[0]["id"] == "utt-0"  # the other shard is whole


def test_a_shard_of_noise_is_named_on_reading(tmp_path):
    write_records(tmp_path / "table", rows(20), shards=2)
    shard = tmp_path / "table" / "00001.array_record"
    shard.write_bytes(np.random.default_rng(0).bytes(shard.stat().st_size))
    with pytest.raises(UserError, match=r"00001\.array_record"):
        RecordSource(tmp_path / "table")[1]
