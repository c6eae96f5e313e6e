"""The model that a stage of a run trained, to be taken out of the run."""

from typing import Any

from slm_jax.checkpoints.manager import META, Checkpoints
from slm_jax.checkpoints.model_folder import open_params
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.training.gradient_stage import CHECKPOINTS, GradientStageConfig
from slm_jax.training.pre.masked_prediction import MaskedPredictionStageConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.run_folder import StageFolder


def stage_model(folder: StageFolder) -> tuple[Config, dict[str, Any]]:
    """Config of the decoder, encoder or vocoder of a finished stage, and its parameters as a tree of `StoredArray`.

    Raises `UserError` when the stage is not done or trains nothing of the kind.
    """
    require(folder.is_done(), "stage", str(folder.path), "it is not done yet")
    stage = GradientStageConfig.of(folder)
    checkpoints = folder.path / CHECKPOINTS
    params = open_params(checkpoints, "params" if stage.train.ema_decay is None else "ema")
    if hasattr(stage, "model_of"):
        config, place = stage.model_of(folder)
        return config, params[place] if place else params
    if isinstance(stage, UnitLMConfig):
        return stage.decoder(folder), params
    if isinstance(stage, MaskedPredictionStageConfig):
        return stage.model.encoder, params["encoder"]
    if isinstance(stage, UnitVocoderStageConfig):
        saved = Checkpoints(checkpoints)
        return from_json(saved.read_json(saved.newest_sound(), META)["fixed"]["meta"]["vocoder"]), params["generator"]
    raise UserError(f"stage {folder.name!r} is a {type(stage).__name__}: it has no decoder, encoder or vocoder")
