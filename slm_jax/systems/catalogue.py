"""All named systems: their cards, their configs by name, and how many parameters each size has."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

import slm_jax.systems as systems
from slm_jax.core.config import content_hash
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.core.trees import count_parameters, partition
from slm_jax.parallel.sharding import unbox
from slm_jax.systems.card import KINDS, SystemCard
from slm_jax.training.gradient_stage import GradientStageConfig, Outline
from slm_jax.training.stages import RunConfig, StageConfig
from slm_jax.training.step import trained_leaves

ROOT = Path(__file__).parents[2]
"""Where kept plans and figures lie in a checkout; an installed package has none."""
PLANS = "experiments/tpu_plans/plans"
_OUTLINED: dict[str, tuple[Outline, Any]] = {}


@cache
def modules() -> dict[str, Any]:
    """Short name of every system (`gslm`) -> its module, kind by kind."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        path = [f"{folder}/{kind}" for folder in systems.__path__]
        for info in pkgutil.iter_modules(path):
            module = importlib.import_module(f"{systems.__name__}.{kind}.{info.name}")
            if hasattr(module, "CARD"):
                found[info.name] = module
    return found


def is_name(text: str) -> bool:
    """Could it be `NAME` or `NAME:SIZE` of a system? A path of a config file is none."""
    return not text.endswith(".py") and "/" not in text


def named_config(text: str) -> RunConfig:
    """The run config of `gslm` (its tiny twin) or `gslm:published`; raises `UserError` for an unknown name or size."""
    name, _, size = text.partition(":")
    known = modules()
    if name not in known:
        rule = f"a system is one of {', '.join(known)}, a config file ends in .py"
        raise UserError(f"config is {text!r}: {rule}{nearest(name, known)}")
    sizes = known[name].CARD.sizes
    require(not size or size in sizes, f"size of {name}", size, f"one of {', '.join(sizes)}{nearest(size, sizes)}")
    return known[name].config(size or "tiny")


def entries(sizes: bool = True) -> Iterator[dict[str, Any]]:
    """One JSON value for every system; without `sizes` nothing is built."""
    for name, module in modules().items():
        card: SystemCard = module.CARD
        kind = module.__name__.split(".")[-2]
        yield {
            "name": name,
            "system": card.name,
            "kind": kind,
            "paper": card.paper,
            "reads": list(card.reads),
            "writes": list(card.writes),
            "streams": card.streams,
            "counted": card.counted,
            "sizes": {size: described(named_config(f"{name}:{size}")) for size in card.sizes} if sizes else {},
            "plans": [found for plan in card.plans if (found := kept_plan(plan)) is not None],
            "figures": [found for figure in card.figures if (found := kept_figure(figure)) is not None],
        }


class Count(NamedTuple):
    """Parameters of the model of a stage, frozen parts among them, and how many of them it trains."""

    all: int
    trained: int


def described(config: RunConfig) -> dict[str, Any]:
    """The stages of a run, the `parameters` of each that trains by gradient, and how many of them are `trained`."""
    counts = {stage.name: stage_parameters(config, stage) for stage in config.stages}
    return {
        "stages": list(counts),
        "parameters": {name: count.all for name, count in counts.items() if count.all},
        "trained": {name: count.trained for name, count in counts.items() if count.all},
    }


def stage_parameters(config: RunConfig, stage: Any) -> Count:
    """Counts of a stage, 0 where it has no parameters; nothing is drawn.

    Parameters are the collection `params`, frozen parts from elsewhere and what players own in other collections
    (LoRA); averages that are counted are none.
    """
    if not isinstance(stage, GradientStageConfig):
        return Count(0, 0)
    outline, boxed = outlined(config, stage)
    variables = unbox(boxed)
    owned, rest = partition(variables, trained_leaves(outline.players))
    trained = count_parameters(owned)
    return Count(trained + count_parameters(rest["params"]) + count_parameters(outline.frozen), trained)


def outlined(config: RunConfig, stage: GradientStageConfig) -> tuple[Outline, Any]:
    """The outline of a stage and the (boxed) shapes of its variables; what sizes share is made once."""
    key = content_hash(needed(config, stage))
    if key not in _OUTLINED:
        outline = stage.outline(config)
        _OUTLINED[key] = outline, jax.eval_shape(outline.initialise, jax.random.key(0))
    return _OUTLINED[key]


def needed(config: RunConfig, stage: StageConfig) -> list[Any]:
    """A stage and all that it reads, as JSON."""
    return [stage.to_json(), *(needed(config, config.stage(name)) for name in stage.needs)]


def kept_plan(name: str) -> dict[str, Any] | None:
    """What a kept plan says; None where plans are not kept."""
    path = ROOT / PLANS / f"{name}.json"
    if not path.is_file():
        return None
    plan = json.loads(path.read_text(encoding="utf-8"))
    keys = ("run", "stage", "topology", "fits", "parameters", "step_seconds_bound", "mfu_bound", "tokens_per_second")
    peak = {"peak_bytes": plan["bytes_per_device"]["peak"]}
    return {"file": f"{PLANS}/{name}.json", **{key: plan.get(key) for key in keys}, **peak}


def kept_figure(figure: Any) -> dict[str, Any] | None:
    """A kept figure with its value; None where it is not kept."""
    path = ROOT / figure.file
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    for step in figure.place:
        value = value[int(step) if isinstance(value, list) else step]
    return {"words": figure.words, "value": value, "file": figure.file}
