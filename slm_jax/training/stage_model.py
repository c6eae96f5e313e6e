"""The model that a stage of a run trained, to be taken out of the run."""

from typing import Any

from slm_jax.checkpoints.model_folder import open_params
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.training.gradient_stage import CHECKPOINTS, GradientStageConfig
from slm_jax.training.run_folder import StageFolder


def stage_model(folder: StageFolder) -> tuple[Config, dict[str, Any]]:
    """Config of the decoder, encoder or vocoder of a finished stage, and its parameters as a tree of `StoredArray`.

    Raises `UserError` when the stage is not done or trains nothing of the kind.
    """
    require(folder.is_done(), "stage", str(folder.path), "it is not done yet")
    stage = GradientStageConfig.of(folder)
    config, part = stage.model_of(folder)
    params = open_params(folder.path / CHECKPOINTS, "params" if stage.train.ema_decay is None else "ema")
    return config, params[part] if part else params
