"""Parts of a model that something else trained: found, opened leaf by leaf, handed to training, serving and plans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from slm_jax.checkpoints.lazy import load_part
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.core.paths import is_local
from slm_jax.core.trees import joined
from slm_jax.interop.parts import OpenedPart, boxed_shapes, existing, fitting, open_source, opened, source_config
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for, unbox
from slm_jax.training.gradient_stage import CHECKPOINTS, GradientStageConfig, described
from slm_jax.training.part_record import PLACE, Parts, at_path, begin_parts, check_hash, recorded, recorded_sources
from slm_jax.training.run_folder import RunFolder, StageFolder
from slm_jax.training.stage_model import stage_model
from slm_jax.training.stages import RunConfig


def open_part(source: PartSource, run: RunFolder) -> OpenedPart:
    """A part whose config and shapes are known to fit and whose weights are not read yet.

    A folder that is not where `source` says is looked for in the folder `parts` of the run. Raises `UserError` when
    there is none, or when it is not what is expected.
    """
    if source.stage is not None:
        folder = run.stage(source.stage)
        return opened(source, *stage_model(folder), folder.path / CHECKPOINTS)
    place = located(source, run)
    return opened(source, *open_source(str(place), _named(source)), place)


def open_parts(sources: Sequence[PartSource], folder: StageFolder) -> Parts:
    """The parts of a stage, for its `Plan`; what they are is written down on the first call (`parts.json`)."""
    run = run_of(folder)
    return begin_parts(sources, folder, lambda source: open_part(source, run))


def check_parts(sources: Sequence[PartSource], begun: StageFolder | None) -> None:
    """Raise `UserError` when a part that is no stage of the run is not there or does not fit; reads no weights.

    For `StageConfig.check_outside`. A part that is trained on is not needed once there is a checkpoint.
    """
    run = None if begun is None else run_of(begun)
    goes_on = begun is not None and Checkpoints(begun.path / CHECKPOINTS).latest_step() is not None
    for source in sources:
        if source.stage is None and (source.frozen or not goes_on):
            fitting(source, source.taken_config(source_config(str(located(source, run)), _named(source))))


def load_frozen(run: RunFolder, stage: str, mesh: Mesh | None = None, rules: str = "ddp") -> dict[str, Any]:
    """The frozen parts of a finished stage on the devices of `mesh` (None: this one), in the places of their paths.

    Raises `UserError` of one line when one of them is missing or has changed.
    """
    folder = run.stage(stage)
    mesh = MeshConfig().make(jax.local_devices()[:1]) if mesh is None else mesh
    found = [_as_recorded(source, folder) for source in recorded_sources(folder) if source.frozen]
    boxed = joined(*(at_path(part.source.path, part.params) for part in found))
    return load_part(unbox(boxed), shardings_for(boxed, mesh, rules))


def _as_recorded(source: PartSource, folder: StageFolder) -> OpenedPart:
    begun, run = (recorded(folder) or {})[source.path]["hash"], run_of(folder)
    try:
        part = open_part(source, run)
    except UserError as error:
        mend = "run that stage again" if source.stage else f"put them there, or into {own_place(source, run)}"
        raise UserError(
            f"run folder {str(run.path)!r}: part {source.path!r} of stage {folder.name!r} is missing, the weights "
            f"{begun} from {source.source!r} ({error}): {mend}"
        ) from error
    check_hash(part, begun, folder)
    return part


def located(source: PartSource, run: RunFolder | None) -> Path:
    """The folder that holds a part."""
    own = own_place(source, run)
    if own is not None and own.is_dir() and not Path(source.source).is_dir():
        return own
    return existing(source.source, _named(source))


def own_place(source: PartSource, run: RunFolder | None) -> Path | None:
    """Where a run keeps a part that it does not leave where it was found; None for a run in a store."""
    if run is None or not is_local(run.path):
        return None
    return Path(run.path) / PLACE / source.path.replace("/", ".")


def run_of(folder: StageFolder) -> RunFolder:
    """The run that a stage belongs to."""
    return RunFolder(folder.path.parent.parent)


def outlined(sources: Sequence[PartSource], run: RunConfig) -> tuple[dict[str, Config], dict[str, Any]]:
    """(config of each part by path, boxed shapes of the frozen ones) as far as configs tell: no weights are read.

    Raises `UserError` for a part whose config only its trained stage knows; `expect` says it then.
    """
    configs = {source.path: planned_config(source, run) for source in sources}
    shapes = [
        at_path(source.path, boxed_shapes(configs[source.path], source.dtype)) for source in sources if source.frozen
    ]
    return configs, joined(*shapes)


def planned_config(source: PartSource, run: RunConfig) -> Config:
    """The config of a part, which need not be there yet where `expect` states it."""
    if source.expect is not None:
        return source.expect
    if source.stage is None:
        return source.taken_config(source_config(source.source, _named(source)))
    try:
        return source.taken_config(described(run, source.stage, GradientStageConfig).planned_model(run))
    except UserError as error:
        raise UserError(f"{_named(source)} is {source.source!r} ({error}): state `expect`") from error


def _named(source: PartSource) -> str:
    return f"source of part {source.path!r}"
