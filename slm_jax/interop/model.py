"""Whole hub folders: a `config.json` and weights become our config and parameters, and back."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.checkpoints.whole_folder import whole_folder
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import MappingError, Plan, export_params, export_shapes, import_params, recognised, resolve
from slm_jax.interop.families import family_for, family_named, family_of
from slm_jax.interop.family import Family
from slm_jax.interop.readers import WeightSource, open_weights
from slm_jax.interop.safetensors import BFLOAT16, write_safetensors
from slm_jax.interop.transforms import Shape

CONFIG_FILES = ("config.json", "params.json")
DTYPES = {"float32": np.float32, "bfloat16": BFLOAT16, "float16": np.float16}
SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class HubModel:
    """An opened folder that is known to fit: `engine.pieces(plan, weights.read)` gives its arrays."""

    family: Family
    config: Any
    spelling: str
    plan: Plan
    weights: WeightSource


def open_model(path: str | Path) -> HubModel:
    """The folder (or the file of weights beside a `config.json`), checked but not read.

    Raises `UserError` naming everything that we can't honour in the config, or all that does not fit in the weights.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    folder = path if path.is_dir() else path.parent
    hub_config = read_hub_config(folder)
    family = family_of(hub_config)
    beside = {name: folder / f"{name}.json" for name in family.side_files}
    config = family.read_config(hub_config | {name: _read_json(file) for name, file in beside.items() if file.exists()})
    weights = open_weights(path)
    config = family.told_by_names(config, weights.shapes)
    spelling = max(family.spellings, key=lambda name: recognised(family.table(config, name), weights.shapes))
    try:
        plan = resolve(family.table(config, spelling), weights.shapes, family.abstract(config), weights.dtypes)
    except MappingError as error:
        raise MappingError(error.faults, f"{weights.path} is no {family.name} as its config.json says") from None
    return HubModel(family, config, spelling, plan, weights)


def load(path: str | Path, dtype: Any = None) -> tuple[Any, dict[str, Any]]:
    """Config and parameters (nested dicts of NumPy arrays, float32 unless `dtype` is given) of a hub folder.

    Raises `UserError` for what is no such folder, or another dtype than float32, bfloat16, float16 and float64.
    """
    named = isinstance(dtype, str)
    known = not named or dtype in (*DTYPES, "float64")
    require(known, "dtype", dtype, f"must be one of {', '.join(DTYPES)}, float64")
    dtype = DTYPES.get(dtype, dtype) if named else dtype
    model = open_model(path)
    return model.config, import_params(model.plan, model.weights.read, dtype)


def export(
    config: Config,
    params: Any,
    folder: str | Path,
    spelling: str | None = None,
    dtype: str | None = None,
    family: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    on_tensor: Callable[[str], None] | None = None,
    files: Iterable[Path] = (),
    checked: bool = True,
) -> Path:
    """Write a folder that `transformers` loads: `config.json` and safetensors, in shards above `shard_bytes`.

    `family`: the first that can say `config` unless given. `dtype`: float32 (default), bfloat16 or float16.
    `on_tensor` is told each name as it is written. `files` are copied in. The folder appears whole or not at all.
    Rates of dropout that a family does not have are left out. Raises `UserError` when the folder exists already, when
    the config can't be said or a number is too large for `dtype`; `MappingError` when the parameters are not those of
    the config, and, where they are `checked`, when some are not finite or a matrix is all zero: nobody trained those.
    """
    chosen = family_for(config) if family is None else family_named(family)
    hub_config = chosen.write_config(config)
    name, number = spelling or chosen.spellings[0], dtype or "float32"
    require(name in chosen.spellings, "spelling", name, f"{chosen.name} has {', '.join(chosen.spellings)}")
    require(number in DTYPES, "dtype", number, f"must be one of {', '.join(DTYPES)}")
    require_params(chosen.abstract(config), params)
    table = chosen.table(config, name)
    shapes, arrays = export_shapes(table, params), export_params(table, params)
    suspects: list[str] = []
    arrays = _narrowed(_watched(arrays, suspects), DTYPES[number], on_tensor)
    with whole_folder(Path(folder)) as partial:
        for file in files:
            shutil.copyfile(file, partial / file.name)
        _write_weights(partial, shapes, arrays, number, shard_bytes)
        if suspects and checked:
            raise MappingError(suspects, "these weights look wrong, and are written `--unchecked` (checked=False) only")
        for side in chosen.side_files:
            _write_json(partial / f"{side}.json", hub_config.pop(side))
        _write_json(partial / "config.json", {**hub_config, "torch_dtype": number})
    return Path(folder)


def read_hub_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder (or the `params.json` of Meta's); raises `UserError` when there is no good one."""
    found = [folder / name for name in CONFIG_FILES if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder} has no config.json")
    return _read_json(found[0])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path} holds {type(fields).__name__}, not a table of fields")
    return fields


def require_params(abstract: Any, params: Any) -> None:
    """Raise `MappingError` that lists every leaf of `params` whose path or shape is not that of `abstract`."""
    wanted = {path: tuple(leaf.shape) for path, leaf in flatten_by_path(abstract).items()}
    given = {path: tuple(leaf.shape) for path, leaf in flatten_by_path(params).items()}
    faults = [
        f"{path!r} has shape {given.get(path, '(absent)')}, the config needs {wanted.get(path, '(nothing)')}"
        for path in sorted(wanted.keys() | given.keys())
        if wanted.get(path) != given.get(path)
    ]
    if faults:
        raise MappingError(faults, "the parameters are not those of the config")


def _narrowed(
    arrays: Iterable[tuple[str, np.ndarray]], dtype: Any, on_tensor: Callable[[str], None] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in `dtype`, which must be able to hold them; `on_tensor` hears of each."""
    for name, array in arrays:
        with np.errstate(over="ignore"):
            narrow = array.astype(dtype)
        if np.isfinite(array).all() and not np.isfinite(narrow).all():
            raise UserError(f"{name!r} reaches {np.abs(array).max():.3g}, more than {np.dtype(dtype).name} can hold")
        if on_tensor is not None:
            on_tensor(name)
        yield name, narrow


def _watched(arrays: Iterator[tuple[str, np.ndarray]], suspects: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The same arrays; `suspects` gets a line for each that cannot be meant.

    Vectors may be zero: biases are when they are born.
    """
    for name, array in arrays:
        if not np.isfinite(array).all():
            suspects.append(f"{name!r} has {int((~np.isfinite(array)).sum())} values that are not finite")
        elif array.ndim > 1 and not array.any():
            suspects.append(f"{name!r} of shape {list(array.shape)} is all zero")
        yield name, array


def _write_weights(
    folder: Path, shapes: dict[str, Shape], arrays: Iterator[tuple[str, np.ndarray]], dtype: str, shard_bytes: int
) -> None:
    """One file, or shards and their index, as the hub names them."""
    width = np.dtype(DTYPES[dtype]).itemsize
    sizes = {name: width * int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}
    shards = _shards(sizes, shard_bytes)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        own = {name: shapes[name] for name in shard}
        write_safetensors(folder / file, own, islice(arrays, len(own)), DTYPES[dtype])
        places |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        _write_json(folder / "model.safetensors.index.json", index)


def _shards(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Names in order, in groups of at most `most` bytes (a larger tensor stands alone)."""
    groups: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if size > room and groups[-1]:
            groups.append([])
            room = most
        groups[-1].append(name)
        room -= size
    return groups


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
