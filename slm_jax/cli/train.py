"""Run the stages of a recipe in a run folder; run again, it goes on where it stopped."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.console import say
from slm_jax.cli.hosts import HostOptions, joined, speaks
from slm_jax.cli.options import parse_with_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(HostOptions):
    """Train what a config file describes. Any field of the config can be overridden: --lm.train.steps 500.

    On several hosts give the same command on each, with a run folder and a data folder that all of them see.
    """

    config: Annotated[Path, tyro.conf.Positional]
    """A Python file that defines `config`, or a system by name and size, gslm:tiny (see `systems`)."""
    workdir: Path | None = None
    """The run folder; not needed for a dry run."""
    data_dir: Path = Path("data")
    """Where prepared corpora are kept."""
    only: tuple[str, ...] = ()
    """Run these stages only."""
    redo: tuple[str, ...] = ()
    """Set these stages, and those that read them, aside and run them again."""
    profile: str | None = None
    """FIRST:LAST traces the steps after FIRST, up to LAST, of every stage that trains by gradient, into its folder
    `profile`; --STAGE.train.profile does it for one stage."""
    dry_run: bool = False
    """Build everything and take one step of every stage on a few examples, in a folder that is then removed."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Run the stages; print what each took and return it."""
    from slm_jax.core.errors import UserError
    from slm_jax.training.loop import Interrupted
    from slm_jax.training.stages import RunConfig

    options, config = parse_with_config(TrainOptions, argv, "train")
    if not isinstance(config, RunConfig):
        raise UserError(f"config {str(options.config)!r} is a {type(config).__name__}: train needs a RunConfig")
    if options.workdir is None and not options.dry_run:
        raise UserError("--workdir is missing: the folder in which the run is kept")
    if options.dry_run and (options.hosts != "one" or options.coordinator is not None):
        raise UserError("--dry-run works in a folder of this host: take one host for it")
    config = config if options.profile is None else profiled(config, options.profile)
    stopped: Interrupted | None = None
    with joined(options):
        try:
            return _train(options, config)
        except Interrupted as stop:  # on all hosts at once: no failure
            stopped = stop
    if speaks():
        say(str(stopped))
    raise SystemExit(stopped.exit_code) from stopped


def profiled(run: Any, window: str) -> Any:
    """The run with `profile` set in every stage that trains by gradient."""
    from slm_jax.training.gradient_stage import GradientStageConfig

    def changed(stage: Any) -> Any:
        trains = isinstance(stage, GradientStageConfig)
        return stage.replace(train=stage.train.replace(profile=window)) if trains else stage

    return run.replace(stages=tuple(changed(stage) for stage in run.stages))


def _train(options: TrainOptions, config: Any) -> dict[str, Any]:
    if not options.dry_run:
        assert options.workdir is not None
        return _stages(options, config, options.workdir)
    with tempfile.TemporaryDirectory(prefix="slm_jax_dry_run_") as folder:
        return {**_stages(options, config, Path(folder)), "workdir": None}


def _stages(options: TrainOptions, config: Any, workdir: Path) -> dict[str, Any]:
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import StageContext, run_stages

    run, tell = RunFolder(workdir), say if speaks() else _silent
    context = StageContext(run, config.corpus, options.data_dir, speaks(), say=tell, dry_run=options.dry_run)
    done = []
    for name, seconds in run_stages(config, context, only=options.only, redo=options.redo):
        tell(f"stage {name}: {'was done already' if seconds is None else f'done in {seconds:.1f} s'}")
        done.append({"stage": name, "seconds": seconds})
    return {"workdir": str(workdir), "stages": done}


def _silent(text: str) -> None:
    """What a host says that is not the first."""
