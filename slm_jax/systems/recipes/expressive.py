"""Tokens of pitch and of style, and a voice that speaks units with both (SpiRit-LM, Nguyen et al. 2024)."""

from typing import Any

from slm_jax.audio.pitch import PitchConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.heard_turns import SpeechStreamConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.pitch_codec import PitchCodecStageConfig
from slm_jax.training.pre.pitch_codes import PitchCodesConfig
from slm_jax.training.pre.style import StyleStageConfig
from slm_jax.training.pre.style_tokens import StyleTokensConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import StageConfig

CODES, CLASSES = "pitch_codes", "style_classes"
STREAMS = (
    SpeechStreamConfig(stage=CODES, name="pitch"),
    SpeechStreamConfig(stage=CLASSES, name="style", once=False),
)
"""Behind units in the id space, before them in time: 12.5 codes of pitch a second, one style."""


def expressive_tokens(
    encoder: SSLEncoderConfig, pitch: dict[str, Any], style: dict[str, Any], start_from: str | None = None
) -> tuple[StageConfig, ...]:
    """F0 at 200 Hz and its codes; a classifier of manners on `encoder` and the classes that it hears.

    `pitch`, `style`: how both are trained (`train`, `batches`, `optimizer`). `start_from`: weights of the encoder.
    """
    return (
        PitchStageConfig(name="pitch", pitch=PitchConfig(hop_s=0.005)),
        PitchCodecStageConfig(name="pitch_codec", pitch="pitch", **pitch),
        PitchCodesConfig(name=CODES, codec="pitch_codec"),
        StyleStageConfig(name="style", encoder=encoder, start_from=start_from, **style),
        StyleTokensConfig(name=CLASSES, source="stage:style"),
    )


def small_expressive_tokens(encoder: SSLEncoderConfig) -> tuple[StageConfig, ...]:
    """Both in minutes of two cores, as `experiments/expressive_tokens` trains them."""

    def quickly(steps: int, rate: float) -> dict[str, Any]:
        return {
            "train": TrainConfig(steps=steps),
            "batches": PipelineConfig(batch=16),
            "optimizer": OptimizerConfig(learning_rate=rate, warmup_steps=steps // 15),
        }

    return expressive_tokens(encoder, quickly(800, 2e-3), quickly(300, 1e-3))


def reading_tokens(stage: StageConfig) -> StageConfig:
    """A vocoder that reads tokens in the place of F0; other stages as they are."""
    if not isinstance(stage, UnitVocoderStageConfig):
        return stage
    generator = stage.model.generator
    if isinstance(generator, ISTFTVocoderConfig):
        generator = generator.replace(excitation="none")
    assert isinstance(generator, HiFiGANConfig | ISTFTVocoderConfig)  # for the type checker
    model = stage.model.replace(pitch=False, pitch_predictor=None, generator=generator)
    return stage.replace(pitch_tokens=CODES, style_tokens=CLASSES, model=model)


def expressive_voice(vocoder: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    """The stages of a vocoder without its tracker of F0, which is there already, that read both tokens."""
    return tuple(reading_tokens(stage) for stage in vocoder if not isinstance(stage, PitchStageConfig))
