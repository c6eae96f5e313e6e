"""The CTC encoder that a stage of a run trained, as who reads transcribed recordings."""

from pathlib import Path

from slm_jax.core.errors import UserError, require
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.training.gradient_stage import trained
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.run_folder import RunFolder, StageFolder
from slm_jax.training.stages import StageConfig


def run_reader(folder: Path, stage: str | None = None, rows: int = 8) -> CTCReader:
    """Who reads what `stage`, or the last stage that trained encoder and head, can; `rows` utterances at a time.

    Raises `UserError` where there is none that is done.
    """
    run, place = RunFolder(folder), folder / "stages"
    require(place.is_dir(), "run", str(folder), "no folder of a run")
    names = [path.name for path in sorted(place.iterdir(), key=lambda path: path.stat().st_mtime)]
    for name in [stage] if stage is not None else reversed(names):
        found = run.stage(name)
        if found.is_done() and isinstance(StageConfig.of(found), CTCStageConfig):
            return stage_reader(found, rows)
        require(stage is None, "stage", stage, "it is not done, or trained no CTC")
    raise UserError(f"run folder {str(folder)!r} has no finished stage that trained CTC")


def stage_reader(folder: StageFolder, rows: int) -> CTCReader:
    """The encoder and head of a finished stage."""
    config, variables = trained(folder)
    assert isinstance(config, CTCStageConfig)  # for the type checker
    require(not config.head_only, "stage", folder.name, "it trained a head alone: its encoder lies elsewhere")
    return CTCReader(config.model(), variables, config.example, rows)
