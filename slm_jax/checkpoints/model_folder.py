"""A model on its own: `model.json` (its config, where it comes from) beside one sealed checkpoint of its parameters.

MODEL/
  model.json             {"format": 1, "config": ..., "meta": ...}
  weights/00000000/      the parameters, sealed
  tokenizer.json ...     carried along unchanged
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from slm_jax.checkpoints.integrity import write_json
from slm_jax.checkpoints.layout import nested
from slm_jax.checkpoints.manager import ARRAYS, CheckpointError, Checkpoints, reason_of, restore_params
from slm_jax.checkpoints.streamed import StreamedArray, stored_array
from slm_jax.checkpoints.whole_folder import whole_folder
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import Place, as_path
from slm_jax.core.trees import map_by_path

MODEL, WEIGHTS, PARAMS = "model.json", "weights", "params"
FORMAT = 1


def save_model(
    folder: str | Path, config: Config, params: Any, meta: dict[str, Any] | None = None, files: Iterable[Path] = ()
) -> Path:
    """Write a model folder; it appears whole or not at all.

    `params`: a tree of arrays or of `StreamedArray`, which are never in memory as a whole. `meta`: JSON, where the
    model comes from. `files` are copied in. Raises `UserError` when `folder` exists, `CheckpointError` when the disk
    refuses.
    """
    with whole_folder(folder) as partial:
        for file in files:
            shutil.copyfile(file, partial / file.name)
        checkpoints = Checkpoints(partial / WEIGHTS)
        try:
            checkpoints.save_streamed(0, {PARAMS: map_by_path(lambda _, leaf: streamed(leaf), params)}, {})
        except CheckpointError as error:
            raise CheckpointError(f"{folder} could not be written: {reason_of(error.__cause__ or error)}") from error
        write_json(partial / MODEL, {"format": FORMAT, "config": config.to_json(), "meta": meta or {}})
    return Path(folder)


def load_model(folder: Place, sharding: Sharding | Any = None) -> tuple[Config, dict[str, Any]]:
    """Config and parameters (nested dicts of JAX arrays) of a model folder, verified first.

    `sharding`: one for all arrays, or a tree of them shaped like the parameters; None puts all on the first local
    device. Raises `UserError` when the folder is none of ours or is damaged.
    """
    config = read_config(folder)
    return config, restore_params(as_path(folder) / WEIGHTS, item=PARAMS, sharding=sharding).trees[PARAMS]


def open_stored(folder: Place) -> tuple[Config, dict[str, Any]]:
    """`load_model` with a `StoredArray` in place of every array: nothing is read until it is asked for."""
    config = read_config(folder)
    return config, open_params(as_path(folder) / WEIGHTS, PARAMS)


def open_params(folder: Place, item: str) -> dict[str, Any]:
    """A tree of `StoredArray`: one item of the newest undamaged checkpoint in `folder`."""
    checkpoints = Checkpoints(folder)
    step = checkpoints.newest_sound()
    stored = checkpoints.read_json(step, ARRAYS)
    require(item in stored, "item", item, f"the checkpoint of step {step} holds {sorted(stored)}")
    place = checkpoints.path(step) / item
    return nested({path: stored_array(place, path, shape, dtype) for path, (shape, dtype) in stored[item].items()})


def read_config(folder: Place) -> Config:
    """The config of a model folder."""
    return from_json(_read(folder)["config"])


def read_meta(folder: Place) -> dict[str, Any]:
    """Where a model comes from, as whoever wrote the folder put it."""
    return _read(folder)["meta"]


def streamed(leaf: Any) -> StreamedArray:
    """An array as one that is written part by part; a `StreamedArray` as it is."""
    if isinstance(leaf, StreamedArray):
        return leaf
    shard = leaf.sharding.shard_shape(leaf.shape) if isinstance(leaf, jax.Array) else None
    return StreamedArray(tuple(leaf.shape), np.dtype(leaf.dtype), lambda: iter([(None, np.asarray(leaf))]), shard=shard)


def _read(folder: Place) -> dict[str, Any]:
    path = as_path(folder) / MODEL
    require(path.is_file(), "model folder", str(folder), f"it has no {MODEL}; `convert` makes one")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        found, config, meta = value["format"], value["config"], value["meta"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: it is no JSON with format, config and meta") from None
    require(found == FORMAT, f"format of {path}", found, f"this version of slm_jax reads {FORMAT}")
    return {"config": config, "meta": meta}
