"""The codec that a stage of a run trained."""

from pathlib import Path

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.errors import UserError, require
from slm_jax.training.gradient_stage import trained
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.run_folder import RunFolder, StageFolder
from slm_jax.training.stages import StageConfig


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a run."""
    return (Path(folder) / "stages").is_dir()


def run_codec(folder: Path, stage: str | None = None, books: int | None = None) -> CodecTokenizer:
    """The codec of a run: of `stage`, or of the last stage that trained one.

    Raises `UserError` where there is none that is done.
    """
    run = RunFolder(folder)
    names = [path.name for path in sorted((folder / "stages").iterdir(), key=lambda path: path.stat().st_mtime)]
    for name in [stage] if stage is not None else reversed(names):
        place = run.stage(name)
        if place.is_done() and isinstance(StageConfig.of(place), CodecStageConfig):
            return stage_codec(place, books)
        require(stage is None, "stage", stage, "it is not done, or trained no codec")
    raise UserError(f"run folder {str(folder)!r} has no finished stage that trained a codec")


def stage_codec(folder: StageFolder, books: int | None = None) -> CodecTokenizer:
    """The codec of a finished stage."""
    config, variables = trained(folder)
    assert isinstance(config, CodecStageConfig)  # for the type checker
    model, part = config.model_of(folder)
    return CodecTokenizer(model, {name: tree[part] for name, tree in variables.items() if part in tree}, books)
