"""What a checkpoint says about the run that wrote it, and whether another run may go on with it."""

import logging
from collections.abc import Sequence
from typing import Any

from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError
from slm_jax.core.paths import AnyPath
from slm_jax.parallel.hosts import machine_shape
from slm_jax.training.old_checkpoints import FORMAT, with_later_meta
from slm_jax.training.run_folder import differences
from slm_jax.training.step import Player

log = logging.getLogger(__name__)


def describe_run(config: Config, mesh: Config, players: Sequence[Player], meta: dict[str, Any]) -> dict[str, Any]:
    """JSON for a checkpoint: what is `fixed` must agree on resuming, what is under `machine` should."""
    moves = {p.name: {"optimizer": p.optimizer.to_json(), "every": p.every, "start": p.start} for p in players}
    machine = {**machine_shape(), "mesh": mesh.to_json()}
    fixed = {"train": config.binding_json(), "players": moves, "meta": meta}
    return {"fixed": fixed, "machine": machine, "config": config.to_json(), "format": FORMAT}


def check_same_run(step: int, folder: AnyPath, stored: dict[str, Any], mine: dict[str, Any]) -> None:
    """Refuse a checkpoint of other settings with `UserError`; warn when it comes from another machine."""
    before = {**stored["fixed"], "meta": with_later_meta(stored["fixed"]["meta"], mine["fixed"]["meta"])}
    other = differences(completed(before), completed(mine["fixed"]))
    if other:
        raise UserError(
            f"checkpoint of step {step} in {folder} was made with other settings "
            f"(checkpoint -> now): {'; '.join(other)}. Go on with its settings, or train in another folder"
        )
    moved = differences(stored["machine"], mine["machine"])
    if moved:
        log.warning("resuming on another machine shape, so that bits may differ: %s", "; ".join(moved))


def completed(value: Any) -> Any:
    """JSON in which every config has the fields that came later, at their defaults, and no free ones."""
    if isinstance(value, dict) and "type" in value:
        try:
            return from_json(value).binding_json()
        except (UserError, TypeError):
            return value
    return {name: completed(item) for name, item in value.items()} if isinstance(value, dict) else value
