"""Plans: the real training step of a stage, compiled for a TPU slice that is not here, and what that tells."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from slm_jax.core.errors import UserError, require
from slm_jax.core.flops import Flops, count_flops
from slm_jax.core.trees import count_parameters
from slm_jax.parallel.topologies import Topology, make_topology
from slm_jax.training.gradient_stage import GradientStageConfig
from slm_jax.training.stages import RunConfig
from slm_jax.workbench.hlo_text import parse_module
from slm_jax.workbench.hlo_traffic import Traffic, traffic_of
from slm_jax.workbench.plan_bound import Bound, bound_of, mfu
from slm_jax.workbench.plan_memory import Memory, predict, together
from slm_jax.workbench.plan_program import Program, make_program

Say = Callable[[str], None]
NEEDED = re.compile(r"(?:total memory required[^(]*\(|[Uu]sed )([\d.]+)([KMGT]?)")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says. `peak`: bytes on one device, or what it asked for in vain (`fits` False).

    `arguments`, `outputs`, `temporaries`: parts of it; outputs that take the place of arguments are not counted.
    """

    fits: bool
    peak: int
    arguments: int = 0
    outputs: int = 0
    temporaries: int = 0
    traffic: Traffic | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """A stage on a slice: what was counted, what was predicted, and what the compiler made of it."""

    program: Program
    topology: Topology
    flops: Flops
    memory: Memory
    compiled: Compiled

    @property
    def bound(self) -> Bound | None:
        """The roofline; None where nothing could be compiled."""
        traffic = self.compiled.traffic
        return None if traffic is None else bound_of(self.flops, traffic, self.topology)


def gradient_stages(run: RunConfig, name: str | None = None) -> list[GradientStageConfig]:
    """The stages that train by gradient, or the one called `name`; raises `UserError` for one of another kind."""
    chosen = run.stages if name is None else (run.stage(name),)
    stages = [stage for stage in chosen if isinstance(stage, GradientStageConfig)]
    if not stages:
        others = [stage.name for stage in run.stages if isinstance(stage, GradientStageConfig)]
        raise UserError(f"stage is {name!r}: it trains nothing by gradient; {', '.join(others) or 'none'} do")
    return stages


def topology_for(stage: GradientStageConfig, name: str) -> Topology:
    """The slices that a stage's mesh asks for, each of the form `name`."""
    return make_topology(name, stage.train.mesh.slices)


def plan_stage(run: RunConfig, stage: GradientStageConfig, topology: Topology, say: Say) -> StagePlan:
    """Trace and compile the step of `stage` for `topology`; raises `UserError` for settings that do not divide."""
    traced = trace(run, stage, topology)
    return compiled_plan(traced, topology, say)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program that is traced but not compiled."""

    program: Program
    trace: Any
    flops: Flops
    memory: Memory


def trace(run: RunConfig, stage: GradientStageConfig, topology: Topology) -> Traced:
    """Count and predict without compiling."""
    program = make_program(stage, run, topology.devices)
    traced = program.trace()
    return Traced(program, traced, count_flops(traced.jaxpr), predict(program, traced.jaxpr))


def compiled_plan(traced: Traced, topology: Topology, say: Say) -> StagePlan:
    """The plan of a traced program."""
    name = traced.program.stage.name
    say(f"{name}: compiling for {topology.name}, {len(topology.devices)} devices (minutes for large models)")
    compiled = compile_for(traced.trace, topology)
    say(f"{name}: compiled in {compiled.seconds:.0f} s")
    return StagePlan(traced.program, topology, traced.flops, traced.memory, compiled)


def compile_for(traced: Any, topology: Topology) -> Compiled:
    """Let the TPU compiler make the program; one that does not fit is an answer, not an error."""
    start = time.perf_counter()
    try:
        with uncached():
            executable = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        return Compiled(fits=False, peak=needed, seconds=time.perf_counter() - start)
    sizes = executable.memory_analysis()
    traffic = traffic_of(parse_module(executable.as_text()), topology.slices)
    arguments, peak = sizes.argument_size_in_bytes, sizes.peak_memory_in_bytes
    return Compiled(
        fits=peak <= topology.chip.device_memory,
        peak=peak,
        arguments=arguments,
        outputs=sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        temporaries=max(peak - arguments, 0),
        traffic=traffic,
        seconds=time.perf_counter() - start,
    )


def needed_bytes(message: str) -> int | None:
    """What a program wanted that the compiler refused; None when it was refused for something else."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = NEEDED.search(message)
    return round(float(found[1]) * UNITS[found[2]]) if found else 0


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Keep programs for devices that are not here out of the compile cache, which could not load them again."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(use: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", use)
    compilation_cache.reset_cache()  # it looks at the setting only once


def settings_of(program: Program) -> dict[str, Any]:
    """What a plan depends on besides the model."""
    stage = program.stage
    axes = {name: size for name, size in program.mesh.shape.items() if size > 1}
    return {
        "batch": stage.batches.batch,
        "accumulate": stage.train.accumulate,
        "rows_per_device": program.rows_per_share,
        "remat": remat_of(stage),
        "rules": stage.train.mesh.rules,
        "mesh": axes,
    }


def remat_of(config: Any) -> bool | None:
    """The `remat` of the first config inside that has one."""
    if hasattr(config, "remat"):
        return bool(config.remat)
    inner = (getattr(config, field.name) for field in dataclasses.fields(config))
    found = (remat_of(each) for each in inner if dataclasses.is_dataclass(each))
    return next((value for value in found if value is not None), None)


def figures(plan: StagePlan) -> dict[str, Any]:
    """A plan as JSON; bytes are of one device, FLOPs of all."""
    program, compiled, chip = plan.program, plan.compiled, plan.topology.chip
    sizes = dataclasses.asdict(plan.memory)
    parts = {name: sizes[name] for name in ("parameters", "optimizer", "ema")}
    moved = compiled.traffic
    return {
        "stage": program.stage.name,
        "topology": plan.topology.name,
        "slices": plan.topology.slices,
        "chip": chip.name,
        "chips": plan.topology.chips,
        "devices": len(plan.topology.devices),
        "settings": settings_of(program),
        "fits": compiled.fits,
        "parameters": count_parameters(program.state.params),
        "bytes_per_device": {
            **parts,
            "arguments": compiled.arguments,
            "outputs": compiled.outputs,
            "temporaries": compiled.temporaries,
            "peak": compiled.peak,
            "limit": chip.device_memory,
        },
        "predicted_peak": plan.memory.peak,
        "flops_per_step": plan.flops.total,
        "model_flops_per_step": plan.flops.model,
        "memory_bytes_moved": None if moved is None else moved.memory,
        "collective_bytes": None if moved is None else moved.links,
        "network_bytes": None if moved is None else moved.network,
        "open_loops": plan.flops.open_loops + (0 if moved is None else moved.open_loops),
        **speed(plan),
        "largest_buffers": [{"bytes": size, "what": what} for size, what in together(plan.memory.largest)],
        "compile_seconds": round(compiled.seconds, 1),
    }


def speed(plan: StagePlan) -> dict[str, Any]:
    """The roofline's figures, all None where nothing could be compiled."""
    bound, outline = plan.bound, plan.program.outline
    names = ("step_seconds_bound", "mfu_bound", "tokens_per_second", "audio_hours_per_second")
    if bound is None:
        return {"seconds": None, "bound_by": None, **dict.fromkeys(names)}
    seconds = bound.seconds
    values = (seconds, mfu(plan.flops, seconds, plan.topology), outline.tokens / seconds)
    hours = outline.speech_s / 3600 / seconds
    told = dict(zip(names, (*values, hours), strict=True))
    return {"seconds": dataclasses.asdict(bound), "bound_by": bound.limit, **told}


def gathered(run: RunConfig, plans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One value for a run: the figures of its heaviest stage on top, those of every stage under `stages`.

    `fits` says whether all of them do.
    """
    require(len(plans) > 0, "stages", [], "there is nothing to plan")
    heaviest = max(plans, key=lambda plan: plan["flops_per_step"])
    top = {**heaviest, "fits": all(plan["fits"] for plan in plans)}
    return {"run": run.name, **top, "stages": list(plans)}
