"""The safetensors format, read through a memory map and written tensor by tensor.

A file is eight bytes with the length of the header, the header (JSON: name -> dtype, shape, place), the numbers. The
reference library checks the same things; ours says which one failed, and writes without holding all tensors at once.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import UserError

BFLOAT16 = np.dtype(jnp.bfloat16)
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": BFLOAT16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
CODES = {np.dtype(dtype).name: code for code, dtype in DTYPES.items()}
HEADER_LIMIT = 100_000_000
"""Bytes of the longest header that is read: a damaged length must not fill the memory."""


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Name -> array on the memory map (nothing is read yet); raises `UserError` for a damaged file."""
    size = path.stat().st_size
    header, start = _header(path, size)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    places = {name: _place(path, name, entry) for name, entry in entries.items()}
    end = max((stop for *_, stop in places.values()), default=0)
    if start + end > size:
        raise UserError(f"{path} is cut short: its header promises {start + end} bytes, the file has {size}")
    if start + end < size:
        raise UserError(f"{path} is damaged: {size - start - end} bytes at its end belong to no tensor")
    if sum(stop - begin for *_, begin, stop in places.values()) != end:
        raise UserError(f"{path} is damaged: its tensors overlap or leave gaps")
    numbers = np.memmap(path, np.uint8, "r", start, (end,)) if end else np.empty(0, np.uint8)
    return {
        name: numbers[begin:stop].view(dtype).reshape(shape) for name, (dtype, shape, begin, stop) in places.items()
    }


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], arrays: Iterable[tuple[str, np.ndarray]], dtype: Any
) -> None:
    """Write `arrays`, which come in the order of `shapes`, as `dtype`; one of them is held at a time."""
    width, end = np.dtype(dtype).itemsize, 0
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        begin, end = end, end + width * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": CODES[np.dtype(dtype).name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, shape), (given, array) in zip(shapes.items(), arrays, strict=True):
            if (name, shape) != (given, array.shape):
                raise ValueError(f"{given!r} of shape {array.shape} came where {name!r} of {shape} belongs")
            file.write(np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header and where the numbers begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(HEADER_LIMIT, size - 8):
            raise UserError(f"{path} is damaged or cut short: a header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise UserError(f"{path} is damaged: its header is no JSON") from None
    if not isinstance(header, dict):
        raise UserError(f"{path} is damaged: its header is no table of tensors")
    return header, 8 + length


def _place(path: Path, name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Dtype, shape, first and last byte of a tensor, checked against each other."""
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{path} is damaged: the header's entry of {name!r} is incomplete") from None
    if code not in DTYPES:
        raise UserError(f"{path}: {name!r} holds {code}: only {', '.join(DTYPES)} are read")
    dtype = np.dtype(DTYPES[code])
    if min(shape, default=0) < 0 or begin < 0 or end - begin != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise UserError(f"{path} is damaged: {name!r} of shape {list(shape)} takes bytes {begin} to {end}")
    return dtype, shape, begin, end
