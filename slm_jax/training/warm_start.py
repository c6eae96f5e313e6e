"""Warm start: the body of a trained text model under a table of units (TWIST, Hassid et al. 2023).

The folder is read when training begins. What it gave, the shape and the hash of the weights, is written beside the
stage's checkpoints, so that a run goes on, and is judged, without it.
"""

import dataclasses
import json
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.checkpoints.integrity import write_json
from slm_jax.checkpoints.lazy import part_hash
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError, require
from slm_jax.interop.parts import RUNNING, TRAINING, differing, open_source, shape, source_config
from slm_jax.parallel.hosts import on_first_host
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.training.run_folder import StageFolder

RECORD, FIELD = "warm_start.json", "start_from"
TOKENS, HEAD = "tokens", "head_kernel"
"""Where a decoder keeps its table `[V, D]`, and its head `[D, V]` where that is a matrix of its own."""
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
        """Parameters of the start: the table is drawn, the body is read when it is put on its devices.

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
        return part_hash(self._loaded[1])


def load_decoder(source: str) -> tuple[DecoderConfig, dict[str, Any]]:
    """Config and parameters (not read yet) of the decoder in a folder; raises `UserError` when there is none."""
    config, params = open_source(source, FIELD)
    return decoder_config(config, source), params


def check_source(source: str, wanted: DecoderConfig | None) -> None:
    """Raise `UserError` when `source` holds no sound decoder of the shape `wanted`; reads no weights."""
    found = decoder_in(source)
    agreed(found, wanted, found.vocabulary, source)


def decoder_in(source: str) -> DecoderConfig:
    """The config of the decoder in a folder, whose names and shapes are looked at and whose weights are not."""
    return decoder_config(source_config(source, FIELD), source)


def decoder_config(config: Any, source: str) -> DecoderConfig:
    """`config`, when it is that of a decoder."""
    kind = type(config).__name__
    require(isinstance(config, DecoderConfig), FIELD, source, f"it holds a {kind}; a language model is needed")
    return config


def agreed(found: DecoderConfig, wanted: DecoderConfig | None, vocabulary: int, source: str) -> DecoderConfig:
    """The weights' shape with the run's own dropout and ways of running.

    Raises `UserError` that lists every field of `wanted` in which the weights differ.
    """
    bound = found.max_positions if found.positions == "learned" else None  # speech is longer than text
    if wanted is None:
        return found.replace(vocabulary=vocabulary, max_positions=bound)
    lines = differing(shape(wanted), shape(found))
    if lines:
        raise UserError(
            f"start_from {source!r} holds a model of another shape (config -> weights): {lines}. "
            "Set model to None in the config to take the shape from the folder"
        )
    names = (name for name in (*TRAINING, *RUNNING, "max_positions") if hasattr(wanted, name))
    own = {name: getattr(wanted, name) for name in names}
    return found.replace(**{**own, "vocabulary": vocabulary})


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
