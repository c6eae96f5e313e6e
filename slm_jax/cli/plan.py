"""Compile a config's training steps for a TPU slice, here and without a TPU: does it fit, how fast can it be.

Nothing is read but the config: neither data nor weights.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.console import say, table
from slm_jax.cli.options import parse_with_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Plan what a config file describes on a TPU slice. Any field of the config can be overridden:
    --lm.batches.batch 512."""

    config: Annotated[Path, tyro.conf.Positional]
    """A Python file that defines `config`, or a system by name and size, gslm:tiny (see `systems`)."""
    topology: str
    """The slice, CHIP:SHAPE: v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x1. Several slices: the config's
    mesh.slices."""
    stage: str | None = None
    """Plan this stage only; all that train by gradient otherwise."""
    fit: bool = False
    """Find settings that fit: micro-batches, rematerialisation, fsdp. At most three compilations a stage."""
    out: Path | None = None
    """A folder for plan.json and plan.txt."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Plan the stages; print and return the figures."""
    from slm_jax.core.errors import UserError
    from slm_jax.training.stages import RunConfig
    from slm_jax.workbench.plan import gathered, gradient_stages

    options, config = parse_with_config(PlanOptions, argv, "plan")
    if not isinstance(config, RunConfig):
        raise UserError(f"config {str(options.config)!r} is a {type(config).__name__}: plan needs a RunConfig")
    plans = []
    for stage in gradient_stages(config, options.stage):
        plans.append(_planned(options, config, stage))
        print(_text(plans[-1]) + "\n", flush=True)
    result = gathered(config, plans)
    if options.out is not None:
        _write(options.out, result)
    return result


def _planned(options: PlanOptions, config: Any, stage: Any) -> dict[str, Any]:
    from slm_jax.workbench.plan import figures, plan_stage, topology_for
    from slm_jax.workbench.plan_fit import advice, fit

    topology = topology_for(stage, options.topology)
    if options.fit:
        found = fit(config, stage, topology, say)
        tries = [{**dataclasses.asdict(each), "flags": list(each.flags)} for each in found.tries]
        return {**figures(found.plan), "tries": tries, "flags": list(found.flags)}
    told = figures(plan_stage(config, stage, topology, say))
    if not told["fits"]:
        say(f"{stage.name}: it does not fit; looking for settings that would")
        flags = advice(config, stage, topology)
        told["advice"] = None if flags is None else list(flags)
    return told


def _text(plan: dict[str, Any]) -> str:
    from slm_jax.workbench.plan_text import plan_lines

    return table(plan_lines(plan))


def _write(folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join(_text(plan) for plan in result["stages"])
    (folder / "plan.txt").write_text(text + "\n", encoding="utf-8")
