"""A stage that goes on from an earlier one of its kind, of its run or of another: nothing trained there gets lost."""

from pathlib import Path

from slm_jax.core.errors import require
from slm_jax.core.part_source import INT8
from slm_jax.training.part_record import Parts, recorded, recorded_sources
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageContext


def outside(goes_on: str) -> bool:
    """Whether this is the folder of a stage in another run, and no stage's name."""
    return "/" in goes_on


def other_stage(path: str) -> StageFolder:
    """A finished stage of another run; raises `UserError` where there is none."""
    folder = StageFolder(Path(path))
    require(folder.is_done(), "goes_on", path, "is no folder of a finished stage (RUN/stages/STAGE)")
    return folder


def earlier_stage(goes_on: str, context: StageContext) -> StageFolder:
    """The stage whose trained weights are the start."""
    return other_stage(goes_on) if outside(goes_on) else context.finished(goes_on)


def check_frozen_parts(parts: Parts, earlier: StageFolder) -> None:
    """Raise `UserError` for a part that is frozen here and is not what it was in the stage before.

    What was trained there must come from there, and what was frozen there must be the same weights.
    """
    before = {source.path: source for source in recorded_sources(earlier)}
    for part in parts.sources:
        name = part.path.split("/", 1)[-1]
        if part.frozen and f"params/{name}" in before:
            rule = f"stage {earlier.name!r} trained it: source='stage:{earlier.name}', take={name!r}"
            require(part.stage == earlier.name, f"source of part {part.path!r}", part.source, rule)
        if part.frozen and part.path in before and (part.dtype == INT8) == (before[part.path].dtype == INT8):
            found, theirs = parts.hashes[part.path], (recorded(earlier) or {})[part.path]["hash"]
            rule = f"stage {earlier.name!r} was trained with the weights {theirs}"
            require(found == theirs, f"part {part.path!r}: the hash of {part.source!r}", found, rule)
