"""Parts from outside of a run: a hub's folder, `hub:NAME`, or a model folder of ours, opened and not read."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.checkpoints.lazy import LazyArray, lazy
from slm_jax.checkpoints.model_folder import MODEL, open_stored, read_config
from slm_jax.core.config import Config, flatten
from slm_jax.core.errors import UserError, require
from slm_jax.core.part_source import HUB, INT8, PartSource
from slm_jax.core.paths import AnyPath
from slm_jax.core.trees import flatten_by_path, map_by_path
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.engine import Job, Plan, made_by, nested
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.family_whisper import boxed_encoder
from slm_jax.interop.hub import snapshot
from slm_jax.interop.int8_parts import int8_leaves, int8_shapes, traced_with_sites
from slm_jax.interop.model import HubModel, open_model, require_params
from slm_jax.interop.readers import WeightSource
from slm_jax.interop.streaming import compare_tied
from slm_jax.nn.ctc_head import CTCHeadConfig
from slm_jax.nn.linear_sites import Sites
from slm_jax.sequence_models.decoder_config import DecoderConfig

TRAINING = (
    *("vocabulary", "dropout", "attention_dropout", "activation_dropout", "feature_dropout", "layer_drop"),
    *("feature_gradient", "masks", "init_scale"),
)
RUNNING = ("unroll", "remat", "dtype", "trim", "mel_frames", "cut")
"""Fields that need not agree with the weights: the run's own are kept."""


@dataclasses.dataclass(frozen=True)
class OpenedPart:
    """A part that fits: its config, its weights as `LazyArray` in the boxes that hold their logical axes.

    `place`: the folder in which it was found.
    """

    source: PartSource
    config: Config
    params: Any
    place: AnyPath


def open_source(source: str, field: str = "source") -> tuple[Config, dict[str, Any]]:
    """Config and parameters (nested dicts of `LazyArray`) of the model in a folder; no weights are read.

    Raises `UserError` when there is none, or none that fits its own config.
    """
    folder = existing(source, field)
    if is_own(folder):
        config, params = open_stored(folder)
        return config, jax.tree.map(lazy, params)
    model = open_model(folder)
    compare_tied(model.plan, model.weights)
    return model.config, lazy_params(model)


def source_config(source: str, field: str = "source") -> Config:
    """The config of the model in a folder, whose weights are not looked at."""
    folder = existing(source, field)
    return read_config(folder) if is_own(folder) else open_model(folder).config


def existing(source: str, field: str = "source") -> Path:
    """The folder `source` (the local copy of `hub:NAME`); raises `UserError` when it is none that holds a model."""
    folder = snapshot(source) if source.startswith(HUB) else Path(source)
    require(folder.is_dir(), field, source, "there is no such folder; it must hold the weights to begin with")
    known = (folder / MODEL).is_file() or (folder / "config.json").is_file()
    require(known, field, source, "it has neither config.json (a hub folder) nor model.json (one of ours)")
    return folder


def is_own(folder: Path) -> bool:
    """Whether a folder is one that `convert` wrote, and not a hub's."""
    return (folder / MODEL).is_file()


def lazy_params(model: HubModel) -> dict[str, Any]:
    """The parameters of an opened hub folder as `LazyArray`, each layer made from its sources when it is read."""
    jobs: dict[str, dict[int | None, Job]] = {}
    for job in model.plan.jobs:
        for path in job.targets:
            jobs.setdefault(path, {})[job.layer] = job
    return nested({path: _lazy_leaf(path, own, model.plan, model.weights) for path, own in jobs.items()})


def _lazy_leaf(path: str, jobs: dict[int | None, Job], plan: Plan, weights: WeightSource) -> LazyArray:
    target = plan.targets[path]
    return LazyArray(
        tuple(target.shape),
        target.dtype,
        lambda entry: made_by(jobs[entry], plan, weights.read)[path],
        None not in jobs,
    )


def opened(source: PartSource, config: Config, params: Any, place: AnyPath) -> OpenedPart:
    """The part that `source` says, from the config and the lazy weights that were found there.

    Raises `UserError` when they do not fit what is expected of them, or each other.
    """
    whole, params = source.taken(config, params)
    config = less_norm(source, whole)
    if config != whole:
        params = {name: tree for name, tree in params.items() if name != "final_norm"}
    in_int8 = source.dtype == INT8
    boxed = boxed_shapes(config, None if in_int8 else source.dtype)
    require_params(meta.unbox(boxed), params)
    dtypes = flatten_by_path(meta.unbox(boxed))
    leaves = {path: lazy(leaf, dtypes[path].dtype) for path, leaf in flatten_by_path(params).items()}
    if in_int8:
        leaves, boxed = int8_leaves(leaves, boxed, _boxed(config)[1]), boxed_shapes(config, INT8)
    return OpenedPart(source, fitting(source, config), reboxed(boxed, leaves.__getitem__), place)


def less_norm(source: PartSource, found: Config) -> Config:
    """`found`, a Whisper encoder, less its last norm where `source` expects that: the adapter behind it brings one."""
    kinds = (source.expect, found)
    if not all(isinstance(kind, WhisperEncoderConfig) for kind in kinds) or source.expect.final_norm:  # type: ignore
        return found
    return found.replace(final_norm=False)


def boxed_shapes(config: Config, dtype: str | None = None) -> Any:
    """Shapes of the parameters of a decoder, encoder or vocoder in the boxes that hold their logical axes.

    `dtype`: that of all that are floats; int8 is that of dense kernels alone. Raises `UserError` for a config of
    something else.
    """
    boxed, sites = _boxed(config)
    if dtype == INT8:
        return int8_shapes(boxed, sites)
    return boxed if dtype is None else _cast(boxed, dtype)


@lru_cache(maxsize=32)  # an init is traced for it
def _boxed(config: Config) -> tuple[Any, Sites]:
    """Shapes, and which of them are kernels of `Linear` layers."""
    for family in FAMILIES.values():
        if isinstance(config, family.config_type):
            return traced_with_sites(partial(family.boxed, config))
    if isinstance(config, WhisperEncoderConfig):
        return traced_with_sites(partial(boxed_encoder, config))
    if isinstance(config, CTCHeadConfig):
        return traced_with_sites(partial(_boxed_head, config))
    kinds = sorted({family.config_type.__name__ for family in FAMILIES.values()})
    raise UserError(f"a {type(config).__name__} is no part whose weights are known: {', '.join(kinds)} are")


def _boxed_head(config: CTCHeadConfig) -> Any:
    frames = jax.ShapeDtypeStruct((1, 1, config.width), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), frames)["params"]


def _cast(boxed: Any, dtype: str) -> Any:
    shapes = flatten_by_path(meta.unbox(boxed))

    def cast(path: str) -> jax.ShapeDtypeStruct:
        shape = shapes[path]
        return jax.ShapeDtypeStruct(
            shape.shape, jnp.dtype(dtype) if jnp.issubdtype(shape.dtype, jnp.floating) else shape.dtype
        )

    return reboxed(boxed, cast)


def reboxed(boxed: Any, leaf_at: Callable[[str], Any]) -> Any:
    """`boxed` with `leaf_at(path)` in the place of every leaf, in the same box."""
    paths = map_by_path(lambda path, _: path, meta.unbox(boxed))

    def put(box: Any, path: str) -> Any:
        return box.replace_boxed(leaf_at(path)) if isinstance(box, meta.AxisMetadata) else leaf_at(path)

    return jax.tree.map(put, boxed, paths, is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata))


def fitting(source: PartSource, found: Config) -> Config:
    """The config that a part runs by: the expected one where `source` has one, which must have the weights' shape.

    Raises `UserError` that lists every field in which the two differ.
    """
    expected, found = source.expect, less_norm(source, found)
    if expected is None:
        return found
    named = f"part {source.path!r}"
    kinds = type(expected).__name__, type(found).__name__
    require(kinds[0] == kinds[1], f"{named}: the model in {source.source!r}", kinds[1], f"a {kinds[0]} is expected")
    tables = [{"vocabulary": getattr(each, "vocabulary", None)} for each in (expected, found)]
    lines = differing(shape(expected) | tables[0], shape(found) | tables[1])
    if lines:
        raise UserError(f"{named}: {source.source!r} holds a model of another shape (expected -> weights): {lines}")
    return expected


def differing(here: dict[str, Any], there: dict[str, Any]) -> str:
    """`layers 3 -> 2; heads 4 -> 2`, empty when all agree."""
    return "; ".join(f"{name} {here[name]!r} -> {there.get(name)!r}" for name in here if here[name] != there.get(name))


def shape(config: Config) -> dict[str, Any]:
    """The fields that weights depend on, with what is left to a default filled in."""
    if isinstance(config, DecoderConfig):
        return _decoder_shape(config)
    unneeded = {*TRAINING, *RUNNING}
    return {name: value for name, value in flatten(config.to_json()).items() if not unneeded & {*name.split(".")}}


def _decoder_shape(config: DecoderConfig) -> dict[str, Any]:
    fields = config.to_json()
    derived = {"kv_heads": config.groups, "head_width": config.channels, "embed_width": config.table_width}
    unneeded = {"type", *TRAINING, *RUNNING}
    if config.positions != "learned":  # then they bound the length and nothing else
        unneeded.add("max_positions")
    if config.positions != "rope":
        unneeded |= {"rope_base", "rope_scaling"}
    return {name: derived.get(name, value) for name, value in fields.items() if name not in unneeded}
