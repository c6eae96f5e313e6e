"""An adapter on its own: a model folder of its config and weights that knows which base it was trained on.

ADAPTER/
  model.json             the adapter's config; under meta the hash of the base's weights
  weights/00000000/      the adapter's weights alone, sealed
"""

from pathlib import Path
from typing import Any

from jax.sharding import Sharding

from slm_jax.checkpoints.layout import nested
from slm_jax.checkpoints.lazy import part_hash
from slm_jax.checkpoints.model_folder import load_model, read_meta, save_model
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import Place
from slm_jax.core.trees import flatten_by_path

BASE = "base"
FAULTS = 8
"""So many misfits are listed."""


def save_adapter(folder: str | Path, config: Config, lora: Any, base: Any, meta: dict[str, Any] | None = None) -> Path:
    """Write the adapter that `config.name` calls, out of the collection `lora`, with the hash of `base`'s weights.

    Raises `UserError` when the collection has no such adapter, or when `base` has no kernels for it.
    """
    name = config.name  # type: ignore[attr-defined]
    own = {path: leaf for path, leaf in flatten_by_path(lora).items() if path.split("/")[-2:-1] == [name]}
    require(bool(own), "adapter", name, "the collection holds no weights of that name")
    _require_fit(own, base, "the adapter")
    return save_model(folder, config, nested(own), {**(meta or {}), BASE: part_hash(base)})


def load_adapter(
    folder: Place, base: Any, sharding: Sharding | Any = None, *, other_weights: bool = False
) -> tuple[Config, dict[str, Any]]:
    """Config and weights (a collection `lora`) of an adapter's folder, for the parameters `base`.

    Raises `UserError` that lists every path where `base` has no kernel of the right shape, and when `base` has other
    weights than the adapter was trained on, unless `other_weights` allows them (a base in bfloat16 or int8).
    """
    config, lora = load_model(folder, sharding)
    meta = read_meta(folder)
    require(BASE in meta, "adapter folder", str(folder), "holds a whole model, not an adapter")
    _require_fit(flatten_by_path(lora), base, f"the adapter in {folder}")
    if not other_weights:
        rule = f"the adapter in {folder} was trained on {meta[BASE]}; `other_weights=True` takes it all the same"
        found = part_hash(base)
        require(found == meta[BASE], "hash of the base's weights", found, rule)
    return config, lora


def _require_fit(lora: dict[str, Any], base: Any, what: str) -> None:
    """Every `a` must begin as the kernel beside it does, every `b` end as it does."""
    kernels = flatten_by_path(base)
    faults = []
    for path in (path.removesuffix("/a") for path in lora if path.endswith("/a")):
        place = f"{path.rpartition('/')[0]}/kernel"
        kernel = kernels.get(place, kernels.get(f"{place}/q"))  # `q`: kept in int8
        a, b = tuple(lora[f"{path}/a"].shape), tuple(lora[f"{path}/b"].shape)
        if kernel is None:
            faults.append(f"{place} is absent")
        elif not _fits(a, b, tuple(kernel.shape)):
            faults.append(f"{place} has shape {tuple(kernel.shape)}, a and b have {a} and {b}")
    if faults:
        more = f" and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
        raise UserError(f"{what} does not fit this base: " + "; ".join(faults[:FAULTS]) + more)


def _fits(a: tuple[int, ...], b: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    lead = len(a) + len(b) - len(kernel) - 2  # axes in front of both: 1 in a stack
    return lead in (0, 1) and a[:-1] + b[lead + 1 :] == kernel and a[:lead] == b[:lead]
