"""A stage that goes on from an earlier one of its kind: nothing that was trained there may get lost."""

from slm_jax.core.errors import require
from slm_jax.core.part_source import INT8
from slm_jax.training.part_record import Parts, recorded, recorded_sources
from slm_jax.training.run_folder import StageFolder


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
