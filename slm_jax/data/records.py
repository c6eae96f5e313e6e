"""Derived tables (units, labels, prosody) as ArrayRecord shards with an index.

A row is a dict: numpy arrays, integers, floats, strings, None, and JSON's lists and objects of these. It is stored as
MessagePack with the raw bytes of each array: compact, no code is run while reading (unlike pickle), and readable from
any language.
Row i lies in shard i mod S, so that rows can be written as they come and found without a table of positions. Tables
that are made shard by shard (`data.shards`) have blocks instead: each shard says how many rows it holds.
"""

import hashlib
import io
import json
import threading
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from slm_jax.core.config import content_hash
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import AnyPath, Place, as_path, beside, file_size, local_copy, move_into_place

FORMAT_VERSION, BLOCKS_VERSION = 1, 2
"""Of tables whose rows go round the shards, and of those that have a block of rows in each."""
INDEX_FILE = "index.json"
LENGTHS_FILE = "lengths.npz"
_ARRAY = 1  # MessagePack extension code of (dtype, shape, bytes)


def pack_row(row: dict[str, Any]) -> bytes:
    """One row as bytes; raises `UserError` for a value that is neither a plain value nor a numeric array."""
    return msgpack.packb({name: _plain(name, value) for name, value in row.items()}, default=_encode_array)


def unpack_row(data: bytes) -> dict[str, Any]:
    """The row that `pack_row` wrote; its arrays are read-only views of `data`."""
    return msgpack.unpackb(data, ext_hook=_decode_array)


def write_records(folder: Place, rows: Iterable[dict[str, Any]], *, shards: int = 8) -> None:
    """Write `rows` as a table at `folder`, replacing a table that is there.

    Everything is written beside the target and moved in at the end, so that a killed run leaves no half table.
    No rows make an empty table. Raises `UserError` for a row whose fields or kinds differ from those before it (None
    goes with any kind).
    """
    require(shards > 0, "shards", shards, "at least one shard")
    folder = as_path(folder)
    with beside(folder) as writing:
        _write_table(writing, rows, shards)
        move_into_place(writing, folder, INDEX_FILE)


class RecordSource:
    """Random access to a table of `write_records`: `len(source)`, `source[i] -> dict`; may be pickled.

    Of a table in a store each shard is copied to this machine when it is first read.

    Arrays are read-only. Raises `UserError` naming the file for a missing, shortened or unreadable shard. Opening
    compares file sizes only; `verify` reads everything and compares the checksums.
    """

    def __init__(self, folder: Place) -> None:
        self._open(as_path(folder))

    def _open(self, folder: AnyPath) -> None:
        self.folder = folder
        self._index = _read_index(folder)
        self._shards = self._index["shards"]
        for shard in self._shards:
            path = self._path(shard)
            size = file_size(path)
            if size != shard["bytes"]:
                found = "missing" if size is None else f"{size} bytes"
                raise UserError(f"shard {str(path)!r} is damaged: {shard['bytes']} bytes were written, now {found}")
        blocks = self._index["format"] == BLOCKS_VERSION
        self._ends = list(accumulate(shard["rows"] for shard in self._shards)) if blocks else None
        self._readers: dict[int, ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._index["count"]

    def __getitem__(self, position: int) -> dict[str, Any]:
        count = len(self)
        if not -count <= position < count:
            raise IndexError(f"row {position} of a table of {count}")
        shard, row = self._place(int(position) % count)
        try:
            return unpack_row(self._reader(shard).read([row])[0])
        except Exception as error:
            raise self._damaged(shard, f"row {position}: {' '.join(str(error).split())[:200]}") from error

    @property
    def schema(self) -> dict[str, str]:
        """Kind of each field: a dtype with its number of axes such as `int32[1]`, or `str`, `int`, `float`, ..."""
        return dict(self._index["schema"])

    @property
    def content_hash(self) -> str:
        """A hash of the contents: equal rows written with the same number of shards give the same hash."""
        return content_hash([shard["sha256"] for shard in self._shards])

    def lengths(self, field: str) -> np.ndarray:
        """Length of the first axis of an array field in every row, int64 `[rows]`, without reading the rows."""
        data = io.BytesIO((self.folder / LENGTHS_FILE).read_bytes())
        if not len(self):  # nobody has said which fields there are
            return np.zeros(0, np.int64)
        with np.load(data, allow_pickle=False) as lengths:
            require(field in lengths, "field", field, f"an array field of {str(self.folder)!r}: {sorted(lengths)}")
            return lengths[field]

    def verify(self) -> None:
        """Compare the checksum of every shard; raises `UserError` naming the first damaged file."""
        for number, shard in enumerate(self._shards):
            if file_sha256(self._path(shard)) != shard["sha256"]:
                raise self._damaged(number, "its checksum differs from the one written")

    def _path(self, shard: dict[str, Any]) -> AnyPath:
        """Where a shard lies: beside the index, or elsewhere if it has a full name."""
        name = shard["file"]
        return as_path(name) if "://" in name else self.folder / name

    def _place(self, position: int) -> tuple[int, int]:
        """The shard of a row, and its place there."""
        if self._ends is None:
            return position % len(self._shards), position // len(self._shards)
        shard = bisect_right(self._ends, position)
        return shard, position - (self._ends[shard - 1] if shard else 0)

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._lock:
            if shard not in self._readers:
                found = self._shards[shard]
                path = str(local_copy(self._path(found), found["sha256"]))
                # without these options the reader reads ahead as if rows came in order
                self._readers[shard] = ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0")
            return self._readers[shard]

    def _damaged(self, shard: int, detail: str) -> UserError:
        return UserError(f"shard {str(self._path(self._shards[shard]))!r} is damaged: {detail}")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["folder"])


def file_sha256(path: AnyPath) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _write_table(folder: Path, rows: Iterable[dict[str, Any]], shards: int) -> None:
    writers: list[ArrayRecordWriter] = []
    names: list[str] = []
    lengths: dict[str, list[int]] = {}
    schema: dict[str, str] = {}
    count = 0
    for count, row in enumerate(rows, start=1):
        schema = joint_schema(schema, schema_of(row), f"row {count - 1}")
        for name, value in row.items():
            if isinstance(value, np.ndarray) and value.ndim:
                lengths.setdefault(name, []).append(len(value))
        if len(writers) < shards:
            names.append(f"{len(names):05d}.array_record")
            writers.append(ArrayRecordWriter(str(folder / names[-1]), "group_size:1"))
        writers[(count - 1) % shards].write(pack_row(row))
    for writer in writers:
        writer.close()
    arrays: dict[str, Any] = {name: np.asarray(values, np.int64) for name, values in lengths.items()}
    np.savez(folder / LENGTHS_FILE, **arrays)
    _write_index(folder, names, count, schema)


def _write_index(folder: Path, names: list[str], count: int, schema: dict[str, str]) -> None:
    shards = [
        {"file": name, "bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names
    ]
    index = {"format": FORMAT_VERSION, "count": count, "schema": schema, "shards": shards}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1))


def _read_index(folder: AnyPath) -> dict[str, Any]:
    path = folder / INDEX_FILE
    require(path.is_file(), "table", str(folder), f"a folder of `write_records` holds {INDEX_FILE}")
    try:
        index = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"index {str(path)!r} is damaged: {error}") from error
    known = index.get("format")
    read = (FORMAT_VERSION, BLOCKS_VERSION)
    require(known in read, f"format of {str(path)!r}", known, f"this version reads {' and '.join(map(str, read))}")
    return index


def schema_of(row: dict[str, Any]) -> dict[str, str]:
    """The kind of each field of a row; raises `UserError` for a value that a table cannot hold."""
    return {name: _kind(name, value) for name, value in row.items()}


def joint_schema(schema: dict[str, str], more: dict[str, str], what: str) -> dict[str, str]:
    """The schema so far, empty where there is none, with what `more` adds: a field that was None everywhere may still
    take a kind. Raises `UserError`, which calls the rest `what`, where the two do not go together."""
    if not schema or not more:
        return schema or more
    kinds = {name: {schema.get(name, "(absent)"), kind} - {"NoneType"} for name, kind in more.items()}
    if schema.keys() != more.keys() or any(len(kind) > 1 for kind in kinds.values()):
        raise UserError(f"{what} has fields {more}: they must be those of the rows before, {schema}")
    return {name: next(iter(kind), "NoneType") for name, kind in kinds.items()}


def _kind(name: str, value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{value.ndim}]"
    return type(_plain(name, value)).__name__


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        require(value.dtype.kind in "biuf", name, str(value.dtype), "arrays of a table hold booleans or numbers")
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{name}.{key}", item) for key, item in value.items()}
    require(value is None or isinstance(value, bool | int | float | str), name, value, "a plain value or an array")
    return value


def _encode_array(value: Any) -> msgpack.ExtType:
    array = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
    return msgpack.ExtType(_ARRAY, msgpack.packb((array.dtype.str, value.shape, array.tobytes())))


def _decode_array(code: int, data: bytes) -> np.ndarray:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is not known")
    dtype, shape, raw = msgpack.unpackb(data)
    return np.frombuffer(raw, np.dtype(dtype)).reshape(shape)
