"""Warm start: the body of a trained text model under a table of units (TWIST, Hassid et al. 2023).

The folder is read when training begins. What it gave, the shape and the hash of the weights, is written beside the
stage's checkpoints, so that a run goes on, and is judged, without it.
"""

import dataclasses
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.checkpoints.integrity import write_json
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.checkpoints.model_folder import load_model, read_config
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.hub import PREFIX, snapshot
from slm_jax.interop.model import load, open_model
from slm_jax.parallel.hosts import on_first_host
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.training.run_folder import StageFolder

RECORD = "warm_start.json"
TOKENS, HEAD = "tokens", "head_kernel"
"""Where a decoder keeps its table `[V, D]`, and its head `[D, V]` where that is a matrix of its own."""
TRAINING = ("vocabulary", "dropout", "attention_dropout", "activation_dropout", "init_scale")
RUNNING = ("unroll", "remat", "dtype")
"""Fields that need not agree with the weights: the run's own are kept."""
Table = Literal["fresh", "first_rows"]


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """A decoder that begins with the weights in `source`: a hub folder, `hub:NAME`, or a model folder of ours.

    `wanted`: the shape the run's config states, which must be that of the weights; None takes theirs. `vocabulary`:
    rows of the new table. `table` says what stands in them: "fresh" draws normal numbers with the standard deviation
    of the old table, "first_rows" keeps the old rows as far as there are any (slamkit) and draws the rest. A head of
    its own is treated like the table.
    """

    source: str
    wanted: DecoderConfig | None
    vocabulary: int
    table: Table
    seed: int
    folder: StageFolder

    def begin(self) -> tuple[DecoderConfig, str]:
        """The decoder's config and the hash of its weights, written down on the first call in a stage's folder."""
        record = on_first_host(lambda: recorded(self.folder))
        if record is None:
            config, params = self._loaded
            model = agreed(config, self.wanted, self.vocabulary, self.source)
            record = {"model": model.to_json(), "weights": self._digest, "source": self.source, "table": self.table}
            on_first_host(lambda: write_json(self.folder.path / RECORD, record))
        return recorded_model(self.folder), record["weights"]

    def params(self) -> dict[str, Any]:
        """Parameters of the start, read from the folder.

        Raises `UserError` when they are not those that the stage began with.
        """
        _, begun = self.begin()
        rule = f"stage {self.folder.name!r} began with the weights {begun}, and has no checkpoint yet to go on from"
        require(self._digest == begun, f"weights in {self.source!r}", self._digest, rule)
        return retabled(self._loaded[1], self.vocabulary, self.table, jax.random.key(self.seed))

    @cached_property
    def _loaded(self) -> tuple[DecoderConfig, dict[str, Any]]:
        return load_decoder(self.source)

    @cached_property
    def _digest(self) -> str:
        return weights_hash(self._loaded[1])


def load_decoder(source: str) -> tuple[DecoderConfig, dict[str, Any]]:
    """Config and parameters of the decoder in a folder; raises `UserError` when there is none."""
    folder = existing(source)
    config, params = load_model(folder) if is_own(folder) else load(folder)
    return decoder_config(config, source), params


def check_source(source: str, wanted: DecoderConfig | None) -> None:
    """Raise `UserError` when `source` holds no sound decoder of the shape `wanted`; reads no weights."""
    found = source_config(source)
    agreed(found, wanted, found.vocabulary, source)


def source_config(source: str) -> DecoderConfig:
    """The config of the decoder in a folder, whose names and shapes are looked at and whose weights are not."""
    folder = existing(source)
    return decoder_config(read_config(folder) if is_own(folder) else open_model(folder).config, source)


def existing(source: str) -> Path:
    """The folder `source` (the local copy of `hub:NAME`); raises `UserError` when it is none that holds a model."""
    folder = snapshot(source) if source.startswith(PREFIX) else Path(source)
    require(folder.is_dir(), "start_from", source, "there is no such folder; it must hold the weights to begin with")
    known = (folder / "model.json").is_file() or (folder / "config.json").is_file()
    require(known, "start_from", source, "it has neither config.json (a hub folder) nor model.json (one of ours)")
    return folder


def is_own(folder: Path) -> bool:
    """Whether a folder is one that `convert` wrote, and not a hub's."""
    return (folder / "model.json").is_file()


def decoder_config(config: Any, source: str) -> DecoderConfig:
    """`config`, when it is that of a decoder."""
    kind = type(config).__name__
    require(isinstance(config, DecoderConfig), "start_from", source, f"it holds a {kind}; a language model is needed")
    return config


def agreed(found: DecoderConfig, wanted: DecoderConfig | None, vocabulary: int, source: str) -> DecoderConfig:
    """The weights' shape with the run's own dropout and ways of running.

    Raises `UserError` that lists every field of `wanted` in which the weights differ.
    """
    bound = found.max_positions if found.positions == "learned" else None  # speech is longer than text
    if wanted is None:
        return found.replace(vocabulary=vocabulary, max_positions=bound)
    here, there = shape(wanted), shape(found)
    lines = [f"{name} {here[name]!r} -> {there[name]!r}" for name in here if here[name] != there[name]]
    if lines:
        raise UserError(
            f"start_from {source!r} holds a model of another shape (config -> weights): {'; '.join(lines)}. "
            "Set model to None in the config to take the shape from the folder"
        )
    own = {name: getattr(wanted, name) for name in (*TRAINING, *RUNNING, "max_positions")}
    return found.replace(**{**own, "vocabulary": vocabulary})


def shape(config: DecoderConfig) -> dict[str, Any]:
    """The fields that weights depend on, with what is left to a default filled in."""
    fields = config.to_json()
    derived = {"kv_heads": config.groups, "head_width": config.channels, "embed_width": config.table_width}
    unneeded = {"type", *TRAINING, *RUNNING}
    if config.positions != "learned":  # then they bound the length and nothing else
        unneeded.add("max_positions")
    if config.positions != "rope":
        unneeded |= {"rope_base", "rope_scaling"}
    return {name: derived.get(name, value) for name, value in fields.items() if name not in unneeded}


def retabled(params: dict[str, Any], vocabulary: int, table: Table, key: jax.Array) -> dict[str, Any]:
    """`params` with a table (and head, where it is a matrix of its own) for `vocabulary` tokens."""
    old = np.asarray(params[TOKENS]["embedding"])
    new: dict[str, Any] = {TOKENS: {"embedding": renewed(old, vocabulary, table, jax.random.fold_in(key, 0))}}
    if HEAD in params:
        head = np.asarray(params[HEAD]).T
        new[HEAD] = renewed(head, vocabulary, table, jax.random.fold_in(key, 1)).T
    return {**params, **new}


def renewed(old: np.ndarray, rows: int, table: Table, key: jax.Array) -> np.ndarray:
    """A table `[rows, D]` in place of `old` `[V, D]`."""
    drawn = np.array(jax.random.normal(key, (rows, old.shape[1]), jnp.float32)) * old.std(dtype=np.float64)
    if table == "first_rows":
        drawn[: len(old)] = old[:rows]
    return drawn.astype(np.float32)


def weights_hash(params: Any) -> str:
    """16 hex digits over names, shapes and values: the same weights in any file format give the same."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_by_path(params).items()):
        array = np.ascontiguousarray(leaf, np.float32)
        digest.update(f"{path} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:16]


def recorded(folder: StageFolder) -> dict[str, Any] | None:
    """What a stage began with; None before it has begun."""
    path = folder.path / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def recorded_model(folder: StageFolder) -> DecoderConfig:
    """The config of the decoder that a stage began with."""
    record = recorded(folder)
    if record is None:
        raise UserError(f"stage {folder.name!r} has no {RECORD}: redo it")
    return decoder_config(from_json(record["model"]), str(folder.path / RECORD))


def has_begun(folder: StageFolder, checkpoints: str) -> bool:
    """Whether a stage can go on without the folder it started from."""
    return recorded(folder) is not None and Checkpoints(folder.path / checkpoints).latest_step() is not None
