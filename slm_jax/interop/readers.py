"""Weights of a file or a hub folder by name: safetensors, npz and PyTorch's files, single or in shards.

What a file is is told from its first bytes, not its name. PyTorch's files are pickles: they are read by its safe
loader, which builds tensors and plain containers and refuses everything that would run code.
"""

import argparse
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.interop.safetensors import BFLOAT16, read_safetensors
from slm_jax.interop.transforms import Shape

FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What a hub folder's weights are called, the preferred first."""
SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt")
INNER_NAMES = ("model", "model_weight", "state_dict", "model_state_dict", "model_state", "generator", "module")
"""Where checkpoints of training scripts keep the weights beside their optimizer and settings."""
INERT = ("fairseq.data.dictionary.Dictionary",)
"""Classes in published checkpoints whose objects nobody needs here: fairseq's HuBERT keeps its labels in one."""


@dataclass(frozen=True)
class Entry:
    """One tensor that can be read."""

    shape: Shape
    dtype: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class WeightSource:
    """Tensors by name; only shapes and dtypes are known until `read` is called."""

    path: Path
    entries: Mapping[str, Entry]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape."""
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """Name -> dtype as NumPy (or JAX) calls it."""
        return {name: entry.dtype for name, entry in self.entries.items()}

    def read(self, name: str) -> np.ndarray:
        """The tensor in the file's dtype."""
        return self.entries[name].read()


def open_weights(path: str | Path) -> WeightSource:
    """The weights of a file, of an index of shards or of a hub folder.

    Raises `UserError` when there are none, when shards are missing, or when a file is damaged or not safe to read.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    found = _weights_of_folder(path) if path.is_dir() else path
    return WeightSource(found, _shards(found) if found.name.endswith(".index.json") else _read_file(found))


def _weights_of_folder(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).exists():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(files) != 1:
        what = "holds no weights" if not files else f"holds several files of weights ({_listed(files)}): name one"
        raise UserError(f"{folder} {what}; expected {', '.join(FOLDER_FILES)} or one *{', *'.join(SUFFIXES)}")
    return files[0]


def _shards(index: Path) -> dict[str, Entry]:
    """All shards of an index, which must promise what they hold."""
    try:
        place: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files = sorted(set(place.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is damaged: it has no table `weight_map` of names and files") from None
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise UserError(f"{index} names files outside its folder: {', '.join(outside)}")
    missing = [file for file in files if not (index.parent / file).is_file()]
    if missing:
        raise UserError(f"{index.parent} lacks {len(missing)} of {len(files)} shards: {', '.join(missing)}")
    shards = {file: _read_file(index.parent / file) for file in files}
    absent = [f"{name} ({file})" for name, file in place.items() if name not in shards[file]]
    extra = [f"{name} ({file})" for file, shard in shards.items() for name in shard if place.get(name) != file]
    if absent or extra:
        raise UserError(f"{index} does not fit its shards: absent {_listed(absent)}; not in the index {_listed(extra)}")
    return {name: shards[file][name] for name, file in place.items()}


def _read_file(path: Path) -> dict[str, Entry]:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return {name: _entry(array) for name, array in read_safetensors(path).items()}
    if start[:2] == b"PK":
        return _read_zip(path)
    if start[:1] == b"\x80":  # every pickle of protocol 2 and later
        return _read_torch(path, mmap=False)
    raise UserError(f"{path} is no safetensors, npz or PyTorch file, or it is damaged")


def _read_zip(path: Path) -> dict[str, Entry]:
    """An npz or a file of `torch.save`: both are zip archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except zipfile.BadZipFile:
        raise UserError(f"{path} is damaged or cut short: its zip directory can't be read") from None
    if any(name.endswith("data.pkl") for name in members):
        return _read_torch(path, mmap=True)
    if not members or not all(name.endswith(".npy") for name in members):
        raise UserError(f"{path} is a zip archive, but neither an npz nor written by torch.save")
    return {name.removesuffix(".npy"): _npz_entry(path, name) for name in members}


def _npz_entry(path: Path, member: str) -> Entry:
    """One array of an npz, of which only the header is read now."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[version](file)
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError):
        raise UserError(f"{path} is damaged: {member} has no header of an array") from None
    if dtype.hasobject or dtype.kind == "V":
        raise UserError(f"{path}: {member} holds {dtype}, not numbers")

    def read() -> np.ndarray:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[member.removesuffix(".npy")]
        except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{path} is damaged: {member} can't be read ({str(error).splitlines()[0]})") from None

    return Entry(shape, dtype.name, read)


class Inert:
    """Stands for a class that a checkpoint keeps beside its weights: it takes the fields and does nothing."""


def _read_torch(path: Path, mmap: bool) -> dict[str, Entry]:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path} is a PyTorch file: reading it needs torch (pip install 'slm_jax[torch]')") from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *((Inert, name) for name in INERT)]):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        wanted = str(error).split("\n")[0]
        raise UserError(f"{path} is refused: it wants to run code or build foreign objects ({wanted})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} can't be read by torch.load: {str(error).splitlines()[0]}") from None
    return {name: _torch_entry(tensor) for name, tensor in _state_dict(path, loaded, torch.Tensor).items()}


def _state_dict(path: Path, loaded: Any, tensor: type) -> dict[str, Any]:
    """The tensors of a checkpoint, which may be the whole file or one entry of it."""
    for found in (loaded, *(loaded.get(name) for name in INNER_NAMES if isinstance(loaded, dict))):
        if isinstance(found, dict) and found and all(isinstance(value, tensor) for value in found.values()):
            return found
    what = f"a dict of {_listed(map(str, loaded))}" if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
    raise UserError(f"{path} holds {what}: expected tensors by name, alone or under {', '.join(INNER_NAMES)}")


def _torch_entry(tensor: Any) -> Entry:
    """A tensor; NumPy has no bfloat16 of its own, so that the bits are taken over as integers."""
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")

    def read() -> np.ndarray:
        plain = tensor.detach()
        if dtype == "bfloat16":
            return plain.contiguous().view(torch.int16).numpy().view(BFLOAT16)
        return plain.numpy()

    return Entry(tuple(tensor.shape), dtype, read)


def _entry(array: np.ndarray) -> Entry:
    return Entry(array.shape, array.dtype.name, lambda: array)


def _listed(items: Any, most: int = 8) -> str:
    """The first few of some names."""
    names = [getattr(item, "name", item) for item in items]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
