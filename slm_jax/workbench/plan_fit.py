"""Settings under which a stage fits a slice: predicted by the memory model, confirmed by few compilations."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.rules import ROW_AXES
from slm_jax.parallel.topologies import Topology
from slm_jax.training.gradient_stage import GradientStageConfig
from slm_jax.training.stages import RunConfig
from slm_jax.workbench.plan import Say, StagePlan, Traced, compiled_plan, remat_of, trace

COMPILATIONS = 3
MARGIN = 0.95
"""Share of the memory that a prediction may fill."""


@dataclasses.dataclass(frozen=True)
class Try:
    """A choice that was compiled: bytes the model said, bytes the compiler said."""

    flags: tuple[str, ...]
    predicted: int
    peak: int
    fits: bool


@dataclasses.dataclass(frozen=True)
class Fit:
    """`plan` is the last that was compiled, `flags` what it changes in the config."""

    plan: StagePlan
    tries: tuple[Try, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Overrides for `train`."""
        return self.tries[-1].flags


def fit(run: RunConfig, stage: GradientStageConfig, topology: Topology, say: Say) -> Fit:
    """The quickest settings that fit, with at most three compilations; the stage's own come first.

    What the compiler needs above the prediction in one try is added to the predictions after it. Raises `UserError`
    when the model finds no settings at all.
    """
    tries: list[Try] = []
    plan, scale = None, 1.0
    for choice, traced in predicted(run, stage, topology):
        wanted = traced.memory.peak * scale
        flags = changes(stage, choice)
        say(f"{stage.name}: {' '.join(flags) or 'as it is'}: {wanted / 2**30:.2f} GiB predicted")
        if wanted > room(topology):
            continue
        plan = compiled_plan(traced, topology, say)
        tries.append(Try(flags, traced.memory.peak, plan.compiled.peak, plan.compiled.fits))
        if plan.compiled.fits or len(tries) == COMPILATIONS:
            break
        scale = max(scale, plan.compiled.peak / traced.memory.peak)
    if plan is None:
        raise UserError(
            f"stage {stage.name!r} does not fit {topology.name} under any settings tried: take a larger slice"
        )
    return Fit(plan, tuple(tries))


def advice(run: RunConfig, stage: GradientStageConfig, topology: Topology) -> tuple[str, ...] | None:
    """Overrides under which the model says that the stage fits; None when it finds none. Nothing is compiled."""
    for choice, traced in predicted(run, stage, topology):
        if choice != stage and traced.memory.peak <= room(topology):
            return changes(stage, choice)
    return None


def room(topology: Topology) -> float:
    """Bytes that a prediction may fill."""
    return MARGIN * topology.chip.device_memory


def predicted(
    run: RunConfig, stage: GradientStageConfig, topology: Topology
) -> Iterator[tuple[GradientStageConfig, Traced]]:
    """The stage as it is, then every other way to run it in order of estimated cost, each with its prediction.

    Left out is what cannot fit: with fewer rows at once what is there before the step stays, and the rest shrinks at
    most as the rows do.
    """
    known: dict[Any, tuple[int, Traced]] = {}
    for choice in choices(stage, len(topology.devices)):
        key, parts = (choice.train.mesh, remat_of(choice), choice.batches.batch), choice.train.accumulate
        if key in known:
            before, traced = known[key]
            if traced.memory.fixed + traced.memory.working * before / parts > room(topology):
                continue
        traced = trace(run, choice, topology)
        known[key] = parts, traced
        yield choice, traced


def choices(stage: GradientStageConfig, devices: int) -> list[GradientStageConfig]:
    """The stage as it is where its batch divides, then the others."""
    found = sorted(others(stage, devices), key=estimated_cost)
    return [*([stage] if divides(stage, devices) else []), *found]


def others(stage: GradientStageConfig, devices: int) -> Iterator[GradientStageConfig]:
    """Rules and mesh, micro-batches and rematerialisation; the batch grows only where devices would have no row."""
    slices = stage.train.mesh.slices
    meshes = {stage.train.mesh, MeshConfig(slices=slices, data=1, fsdp=-1, rules="fsdp")}
    remats = {remat_of(stage), True} - {None} or {None}
    for mesh in sorted(meshes, key=lambda mesh: mesh.rules):
        shares = rows_shared(mesh, devices)
        batch = math.ceil(stage.batches.batch / shares) * shares
        for remat in sorted(remats, key=str):
            for accumulate in divisors(batch // shares):
                changed = stage.train.replace(mesh=mesh, accumulate=accumulate)
                rows = stage.batches.replace(batch=batch)
                other = stage.replace(train=changed, batches=rows)
                other = other if remat is None else with_remat(other, remat)
                if other != stage:
                    yield other


def rows_shared(mesh: MeshConfig, devices: int) -> int:
    """Into how many shares a mesh cuts the rows of a batch."""
    return math.prod(mesh.plan(devices).shape[axis] for axis in ROW_AXES)


def divides(stage: GradientStageConfig, devices: int) -> bool:
    """Whether a stage's batch divides over the devices as it is."""
    return stage.batches.batch % (stage.train.accumulate * rows_shared(stage.train.mesh, devices)) == 0


def divisors(number: int) -> list[int]:
    """1, 2, ... of a number."""
    return [each for each in range(1, number + 1) if number % each == 0]


def with_remat(config: Any, remat: bool) -> Any:
    """`config` with the `remat` of every config inside set."""
    changed = {
        field.name: with_remat(value, remat)
        for field in dataclasses.fields(config)
        if isinstance(value := getattr(config, field.name), Config)
    }
    if hasattr(config, "remat"):
        changed["remat"] = remat
    return config.replace(**changed) if changed else config


def estimated_cost(stage: GradientStageConfig) -> float:
    """Only to order choices: recomputation costs a third more, weights are gathered anew for each micro-batch."""
    spread = 0.1 if stage.train.mesh.rules != "ddp" else 0.01
    return stage.batches.batch * (4 / 3 if remat_of(stage) else 1.0) * (1 + spread * stage.train.accumulate)


def changes(before: Config, after: Config) -> tuple[str, ...]:
    """Overrides for the command line that turn one stage into the other, `--lm.train.accumulate 8`."""
    name = getattr(before, "name", "")
    return tuple(_changed(before, after, f"--{name}"))


def _changed(before: Any, after: Any, path: str) -> Iterator[str]:
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        here = f"{path}.{field.name.replace('_', '-')}"
        if old == new:
            continue
        if isinstance(old, Config) and type(old) is type(new):
            yield from _changed(old, new, here)
        else:
            yield f"{here} {str(new).lower() if isinstance(new, bool) else new}"
